"""What Spark may be asked to read: plans of allowed kinds, over the tables of one root or schema, by allowed functions.

Spark's own parser decides what a query is. Whatever it makes that is not listed here is refused: commands, scripts,
files named as tables, and functions that call classes, read files, or were registered by somebody.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from smp_features.config import Config
from smp_features.errors import UsageError, nearest
from smp_features.jvm import PlanNode, parsed_plan
from smp_features.lake.spark_functions import SPARK_FUNCTIONS
from smp_features.tabular import one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PLANS = """
    Aggregate CTERelationDef CTERelationRef CurrentNamespace DescribeColumn DescribeRelation Distinct Except
    ExplainCommand Expand Filter Generate GlobalLimit Intersect Join LateralJoin LocalLimit LocalRelation Offset
    OneRowRelation Pivot Project RelationTimeTravel Sample ShowColumns ShowTables Sort SubqueryAlias Union
    UnresolvedHaving UnresolvedHint UnresolvedInlineTable UnresolvedNamespace UnresolvedRelation
    UnresolvedSubqueryColumnAliases UnresolvedTVFAliases UnresolvedTable UnresolvedTableOrView
    UnresolvedTableValuedFunction UnresolvedWith Unpivot Window WithWindowDefinition
    """
ALLOWED_PLANS = frozenset(_PLANS.split())
"""Logical plans, as Spark's parser makes them, that read nothing but the relations in them."""

_TABLE_FUNCTIONS = "explode explode_outer inline inline_outer posexplode posexplode_outer range stack"
TABLE_FUNCTIONS = frozenset(_TABLE_FUNCTIONS.split())
"""Functions that may stand in place of a table."""


def refuse_all_but_reading(
    session: SparkSession, query: str, tables: Collection[str], config: Config
) -> tuple[str, ...]:
    """Return the tables that a query reads, if it does nothing else.

    Args:
        session: Whose parser is asked.
        query: One statement.
        tables: The tables that there are.
        config: Its `catalog` and `schema` may stand before their names.

    Raises:
        UsageError: It does not parse, would do anything but read these tables, or calls a function that is not one of
            Spark's own or reaches outside.
    """
    if "${" in query:
        raise UsageError("Spark would put settings or the environment in place of ${…}; a query may not hold that.")
    try:
        nodes = list(parsed_plan(session, query))
    except Exception as error:
        said = str(getattr(error, "desc", None) or error)
        lines = [line for line in said.splitlines() if line.strip()]
        reason = one_line(lines[0] if lines else type(error).__name__)[:300]
        raise UsageError(f"The query is not valid SQL in Spark: {reason.rstrip('.')}.") from None
    defined = {name.lower() for node in nodes for name in node.defines}
    found: dict[str, None] = {}
    for node in nodes:
        _refuse_node(node)
        if node.relation is not None:
            found |= dict.fromkeys(_table_of(node.relation, tables, defined, config))
    return tuple(found)


def _refuse_node(node: PlanNode) -> None:
    if node.kind not in ALLOWED_PLANS:
        raise UsageError(
            f"Only reading the tables is allowed, and this query has a part of the kind {node.kind}.",
            "Ask by SELECT, SHOW, DESCRIBE or EXPLAIN.",
        )
    if node.table_function is not None and node.table_function not in TABLE_FUNCTIONS:
        raise UsageError(
            f"Only the tables can be read, not what {node.table_function}(…) would read.",
            "`smp tables` lists the tables.",
        )
    for name in node.functions:
        if name.lower() not in SPARK_FUNCTIONS:
            raise UsageError(
                f"The function {one_line(name)} is none of those that only compute.",
                nearest(name.lower(), SPARK_FUNCTIONS) if len(name) < 40 else None,
            )


def _table_of(
    relation: tuple[str, ...], tables: Collection[str], defined: Collection[str], config: Config
) -> tuple[str, ...]:
    """Return the table that a relation's name means; none for a name that the query defines itself."""
    *place, name = (part.lower() for part in relation)
    schema = config.schema_name.lower()
    catalog = (config.catalog or "spark_catalog").lower()
    if place not in ([], [schema], [catalog, schema]):
        raise UsageError(
            f"Only the tables can be read, not {one_line('.'.join(relation))[:100]}.", "`smp tables` lists the tables."
        )
    if name in tables:
        return (name,)
    if not place and name in defined:
        return ()
    raise UsageError(
        f"There is no table '{one_line(relation[-1])[:100]}'.", f"{nearest(name, tables)} `smp tables` lists them."
    )
