"""Whether two lakehouses hold the same features: keys, statuses and text exactly, floats nearly, times aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from smp_features.lake.specs import Column as TableColumn
from smp_features.lake.tables import Lakehouse

COMPARED = ("texts", "captions", "image_embeddings", "text_embeddings", "perplexities")
FLOAT_TOLERANCE = 1e-5
ASIDE = ("computed_at",)


def differences(
    one: Lakehouse, other: Lakehouse, tables: Sequence[str] = COMPARED, tolerance: float = FLOAT_TOLERANCE
) -> dict[str, dict[str, int]]:
    """Count what differs, by table.

    Args:
        one: Tables.
        other: Tables of the same session.
        tables: Names of tables with a key.
        tolerance: The most that two floats may be apart.

    Returns:
        For each table `rows` of the first, and, where it is not zero, how many rows are `missing` in the second,
        `extra` or `repeated` there, and how many rows present in both differ in a column, under the column's name.
    """
    return {table: _compare(one, other, table, tolerance) for table in tables}


def are_equal(found: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether `differences` found none."""
    return all(set(counts) == {"rows"} for counts in found.values())


def _compare(one: Lakehouse, other: Lakehouse, table: str, tolerance: float) -> dict[str, int]:
    spec = one.spec(table)
    columns = [column for column in spec.columns if column.name not in (*spec.key, *ASIDE)]
    left = one.read(table).withColumn("_here", F.lit(True)).alias("a")
    right = other.read(table).withColumn("_here", F.lit(True)).alias("b")
    same_key = [F.col(f"a.{name}") == F.col(f"b.{name}") for name in spec.key]
    in_left, in_right = F.col("a._here").isNotNull(), F.col("b._here").isNotNull()
    counts = (
        left.join(right, same_key, "full_outer")
        .agg(
            F.count(F.when(in_left & ~in_right, 1)).alias("missing"),
            F.count(F.when(in_right & ~in_left, 1)).alias("extra"),
            *(
                F.count(F.when(in_left & in_right & _differs(column, tolerance), 1)).alias(column.name)
                for column in columns
            ),
        )
        .collect()[0]
        .asDict()
    )
    rows = other.read(table)
    counts["repeated"] = rows.count() - rows.select(*spec.key).distinct().count()
    return {"rows": one.read(table).count(), **{name: count for name, count in counts.items() if count}}


def _differs(column: TableColumn, tolerance: float) -> Column:
    one, other = F.col(f"a.{column.name}"), F.col(f"b.{column.name}")
    if column.sql_type in ("float", "double"):
        near = F.abs(one - other) <= tolerance
    elif column.sql_type in ("array<float>", "array<double>"):
        apart = F.zip_with(one, other, lambda x, y: F.abs(x - y))  # null beside a missing element
        near = F.forall(apart, lambda distance: F.coalesce(distance <= tolerance, F.lit(False)))
    else:
        return ~one.eqNullSafe(other)
    return ~(one.eqNullSafe(other) | F.coalesce(near, F.lit(False)))
