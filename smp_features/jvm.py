"""What is asked of Spark's Java side; the only place that reaches into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
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

_CATALYST = "org.apache.spark.sql.catalyst."


@dataclass(frozen=True)
class PlanNode:
    """A node of a parsed query.

    Attributes:
        kind: The name of its class.
        relation: The parts of the name of the table that it reads; None if it reads none.
        table_function: The function that stands in place of a table; None if none does.
        functions: Names of the functions that its expressions call, a dotted one with its dots.
        defines: Names that the query gives to parts of itself.
    """

    kind: str
    relation: tuple[str, ...] | None = None
    table_function: str | None = None
    functions: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()


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


def parsed_plan(session: SparkSession, query: str) -> Iterator[PlanNode]:
    """Parse one SQL statement, without looking anything up, and yield every node of its plan, those of subqueries too.

    Raises:
        PySparkException: The statement does not parse.
    """
    jvm: Any = session._jvm
    waiting: list[Any] = [session._jsparkSession.sessionState().sqlParser().parsePlan(query)]
    kinds = {
        name: jvm.java.lang.Class.forName(_CATALYST + place)
        for name, place in (
            ("plan", "plans.logical.LogicalPlan"),
            ("has plan", "expressions.PlanExpression"),
            ("function", "analysis.UnresolvedFunction"),
            ("generator", "analysis.UnresolvedGenerator"),
        )
    }
    while waiting:
        node = waiting.pop()
        kind = str(node.getClass().getSimpleName()).rstrip("$")
        functions, subqueries = _expressions(node, kinds)
        waiting += [*_items(node.children()), *subqueries]
        waiting += [each for each in _items(node.innerChildren()) if kinds["plan"].isInstance(each)]
        if kind == "ExplainCommand":
            waiting.append(node.logicalPlan())
        relation = table_function = None
        if kind in ("UnresolvedRelation", "UnresolvedTable", "UnresolvedTableOrView", "UnresolvedView"):
            relation = tuple(map(str, _items(node.multipartIdentifier())))
        elif kind == "UnresolvedNamespace":
            relation = None if node.multipartIdentifier().isEmpty() else (*_words(node.multipartIdentifier()), "*")
        elif kind == "UnresolvedTableValuedFunction":
            table_function = ".".join(_words(node.name())).lower()
        defines = tuple(str(each._1()) for each in _items(node.cteRelations())) if kind == "UnresolvedWith" else ()
        yield PlanNode(kind, relation, table_function, functions, defines)


def _expressions(node: Any, kinds: dict[str, Any]) -> tuple[tuple[str, ...], list[Any]]:
    """Return the functions that the expressions of a node call, and the plans of the subqueries in them."""
    functions: list[str] = []
    plans: list[Any] = []
    waiting = _items(node.expressions())
    while waiting:
        each = waiting.pop()
        waiting += _items(each.children())
        if kinds["has plan"].isInstance(each):
            plans.append(each.plan())
        elif kinds["function"].isInstance(each):
            functions.append(".".join(_words(each.nameParts())))
            filters = each.filter()
            waiting += [filters.get()] if filters.isDefined() else []
        elif kinds["generator"].isInstance(each):
            functions.append(str(each.name().unquotedString()))
    return tuple(functions), plans


def _items(sequence: Any) -> list[Any]:
    return [sequence.apply(index) for index in range(sequence.size())]


def _words(sequence: Any) -> tuple[str, ...]:
    return tuple(map(str, _items(sequence)))
