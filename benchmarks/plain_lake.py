"""Lakehouses written without Spark: every table of a configuration, of rows that are simply given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from smp_features.config import Config
from smp_features.lake.schema import Schema
from smp_features.lake.specs import LAYOUT, LAYOUT_PROPERTY, TableSpec, arrow_schema


def write_lake(root: Path, rows: Mapping[str, Iterable[Mapping[str, Any]]], layout: str = LAYOUT) -> Path:
    """Write all tables of the default configuration under a folder, and return it.

    Args:
        root: A folder without tables.
        rows: Table to rows; columns that a row leaves out are null, tables left out are empty.
        layout: What the tables say they are in.
    """
    for name, spec in Schema.of(Config()).specs.items():
        append(root, spec, rows.get(name, ()), layout)
    return root


def append(root: Path, spec: TableSpec, rows: Iterable[Mapping[str, Any]], layout: str = LAYOUT) -> None:
    """Append rows to a table as one version; create it if it is not there."""
    given = list(rows)
    columns = {each.name: pa.array([row.get(each.name) for row in given], each.arrow_type) for each in spec.columns}
    append_columns(root, spec, columns, layout)


def append_columns(root: Path, spec: TableSpec, columns: Mapping[str, Any], layout: str = LAYOUT) -> None:
    """Append rows given as one Arrow array per column."""
    place, schema = root / "tables" / spec.name, arrow_schema(spec.columns)
    by = ["shard"] if spec.sharded else None
    if not place.exists():
        properties = {LAYOUT_PROPERTY: layout}
        DeltaTable.create(str(place), schema, partition_by=by, configuration=properties, raise_if_key_not_exists=False)
    if any(len(values) for values in columns.values()):
        write_deltalake(str(place), pa.table(dict(columns), schema=schema), mode="append", partition_by=by)
