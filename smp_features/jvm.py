"""What is asked of Spark's Java side; the only place that reaches into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

SPARK_FAILURES = (PySparkException, Py4JError)
"""As what failures of Spark, Delta and Hadoop arrive in Python."""

# The bridge to the JVM logs the traces of what it raises as well, some of them under no name of its own.
logging.getLogger("py4j").setLevel(logging.CRITICAL)
logging.getLogger().addFilter(lambda record: "py4j" not in record.pathname)

_LOGICAL = "org.apache.spark.sql.catalyst.plans.logical."


def jvm_has_ended() -> bool:
    """Whether this process started a JVM that is no more; what then fails says so in many ways."""
    process = getattr(SparkContext._gateway, "proc", None)
    return process is not None and process.poll() is not None


def stay_silent(session: SparkSession) -> None:
    """Keep the thread that listens to the JVM from printing a trace when the JVM ends."""
    server: Any = session.sparkContext._accumulatorServer
    server.handle_error = lambda *_: None


def executors(session: SparkSession) -> list[tuple[str, int]]:
    """Return host and cores of each executor; of a local master, the driver's own; nothing before any has come."""
    context: Any = session.sparkContext._jsc.sc()
    listed = context.statusStore().executorList(True)
    found = [listed.apply(place) for place in range(listed.size())]
    return [(str(e.hostPort()).rpartition(":")[0], int(e.totalCores())) for e in found if int(e.totalCores())]


def parsed(session: SparkSession, query: str) -> Iterator[tuple[str, bool]]:
    """Parse one SQL statement, without looking anything up.

    Yields:
        Of each node of its plan the name of its class, and whether it is a command or a statement to be resolved,
        which is what may change something.

    Raises:
        PySparkException: The statement does not parse.
    """
    jvm: Any = session._jvm
    plan: Any = session._jsparkSession.sessionState().sqlParser().parsePlan(query)
    acting = [jvm.java.lang.Class.forName(_LOGICAL + name) for name in ("Command", "ParsedStatement")]
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        yield str(node.getClass().getSimpleName()), any(kind.isInstance(node) for kind in acting)
        children = node.children()
        waiting.extend(children.apply(index) for index in range(children.size()))
