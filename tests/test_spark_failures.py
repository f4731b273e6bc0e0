"""Failures of Spark become one line that tells the cause, and are noted where they can be."""

from __future__ import annotations

import logging

import pytest
from py4j.protocol import Py4JJavaError

from smp_features import stages
from smp_features.errors import StageError
from smp_features.spark_failures import cause, explained


def test_the_cause_is_the_line_that_tells_most():
    java = "An error\n: org.apache.spark.SparkException: Job aborted\nCaused by: A\n at x\nCaused by: disk full"
    assert cause(java) == "disk full"
    python = f'x\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOSError: no space\n\n{java}'
    assert cause(python) == "OSError: no space"
    assert cause("An error occurred while calling o7.create.\n: java.io.IOException: no folder\n\tat x") == (
        "java.io.IOException: no folder"
    )
    assert cause("plain\nmore") == "plain"


@pytest.fixture
def unwritable(spark, tmp_path):
    """Writes where there can be no folder, which Hadoop refuses."""
    (tmp_path / "file").touch()
    return lambda: spark.range(1).write.parquet(f"{tmp_path}/file/rows")


def test_a_failure_of_hadoop_is_explained_in_one_line(unwritable):
    with pytest.raises(Py4JJavaError):
        unwritable()
    with pytest.raises(StageError, match=r"extract: a Spark job failed: .*file") as caught, explained("extract"):
        unwritable()
    assert "\n" not in str(caught.value)


def test_a_stage_that_spark_fails_is_explained_and_noted(lakehouse, unwritable, monkeypatch):
    monkeypatch.setitem(stages.STAGES, "features", lambda *_, **__: unwritable())
    with pytest.raises(StageError, match="features: a Spark job failed"):
        stages.run_stage(lakehouse.session, lakehouse.config, "features")
    (row,) = lakehouse.read("runs").select("stage", "outcome", "message").collect()
    assert (row["stage"], row["outcome"]) == ("features", "failed")
    assert "a Spark job failed" in row["message"]


def test_a_failure_that_cannot_be_noted_is_still_the_one_that_is_told(lakehouse, unwritable, monkeypatch, caplog):
    def fail(*_, **__):
        raise StageError("The disk is full.")

    monkeypatch.setitem(stages.STAGES, "features", fail)
    monkeypatch.setattr(stages.Lakehouse, "record", lambda *_: unwritable())
    with caplog.at_level(logging.WARNING, "smp_features"), pytest.raises(StageError, match="The disk is full"):
        stages.run_stage(lakehouse.session, lakehouse.config, "features")
    assert "could not be noted in runs" in caplog.text
