"""A lake of the previous layout becomes one of this: fingerprints no longer hold the name of a model's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from smp_features.config import Config
from smp_features.errors import StageError
from smp_features.extractors.base import fingerprint_of
from smp_features.lake.specs import LAYOUT
from smp_features.lake.staging import STAGING
from smp_features.lake.tables import Lakehouse

logger = logging.getLogger(__name__)

CONTENT = {
    "captions": "image_key",
    "image_embeddings": "image_key",
    "text_embeddings": "text_key",
    "perplexities": "text_key",
}
"""The tables that layout 1 had of what extractors made, and their keys."""


def migrate(session: SparkSession, config: Config) -> str:
    """Give every row of an earlier layout the fingerprint that this version computes; no model is loaded.

    It may be repeated after a kill: what is rewritten is not rewritten again, and the layout is noted last.

    Args:
        session: A Spark session with Delta.
        config: Says where the tables are.

    Returns:
        A line for people.

    Raises:
        StageError: There are no tables.
        UsageError: The tables are of a later version than this one.
    """
    lakehouse = Lakehouse(session, config)
    if not lakehouse.exists("extractors"):
        raise StageError(f"There are no tables under {lakehouse.where}.", "Nothing is there to migrate.")
    if lakehouse.layout == LAYOUT:
        return "The tables are of this version's layout: nothing to do."
    if lakehouse.layout > LAYOUT:
        lakehouse.check_layout()
    described = {row["extractor"]: row for row in lakehouse.read("extractors").collect()}
    renamed = new_fingerprints({old: json.loads(row["description"]) for old, row in described.items()})
    rewritten = sum(_rewrite(lakehouse, table, key, renamed) for table, key in CONTENT.items()) if renamed else 0
    if renamed:
        # A failure is noted in `attempts` without being keyed: none is there twice.
        lakehouse.update("attempts", F.col("extractor").isin(*renamed), {"extractor": _renamed(renamed)})
        rows = [described[old].asDict() | {"extractor": new} for old, new in renamed.items()]
        frame = session.createDataFrame(
            [tuple(row[name] for name in lakehouse.spec("extractors").column_names) for row in rows],
            lakehouse.schema("extractors"),
        )
        lakehouse.insert_new("extractors", frame)
        lakehouse.delete("extractors", F.col("extractor").isin(*renamed))
    for table in CONTENT:  # staged rows carry the old fingerprints
        lakehouse.files.delete_prefix(f"{STAGING}/{table}")
    lakehouse.note_layout()
    return (
        f"Migrated: {len(renamed)} fingerprints are new, {rewritten:,} rows were rewritten, all extracted content "
        "stays. Next: `smp run` extracts again what extractors of this version make otherwise, and makes features and "
        "models under the new fingerprints."
    )


def new_fingerprints(descriptions: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return old fingerprints with their new ones.

    Args:
        descriptions: What `extractors` says of each fingerprint.
    """
    found = {}
    for old, description in descriptions.items():
        new = fingerprint_of(identity_in(description))
        if old == new:
            continue  # renamed before a kill
        if old != fingerprint_of(dict(description)):
            logger.warning("extractors: %s is not the fingerprint of its description and is left as it is", old)
            continue
        found[old] = new
    return found


def identity_in(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a description that decides the output: all but the names of the model.

    Weights that a tag names were already pinned by their digest.
    """
    names = {"model", "tag", "revision"} if "architecture" in description else {"model"}
    return {name: value for name, value in description.items() if name not in names}


def _rewrite(lakehouse: Lakehouse, table: str, key: str, renamed: Mapping[str, str]) -> int:
    """Rename the fingerprints of a table, and return the rows that had old ones.

    One model under two names had two fingerprints and has one: of two rows for one content, one goes, never the one
    that is usable alone.
    """
    rows = lakehouse.read(table).select("shard", key, "extractor", "status")
    rows = rows.where(F.col("extractor").isin(*renamed, *renamed.values()))
    new = F.coalesce(_renamed(renamed), F.col("extractor"))
    order = Window.partitionBy(key, new).orderBy((F.col("status") != "ok"), "extractor")
    surplus = rows.withColumn("_place", F.row_number().over(order)).where("_place > 1")
    lakehouse.delete_rows(table, surplus.select("shard", key, "extractor"))
    old = F.col("extractor").isin(*renamed)
    counted = lakehouse.read(table).where(old).count()
    if counted:
        lakehouse.update(table, old, {"extractor": _renamed(renamed)})
    return counted


def _renamed(fingerprints: Mapping[str, str]) -> Column:
    pairs: Iterable[Column] = (F.lit(each) for pair in fingerprints.items() for each in pair)
    return F.create_map(*pairs)[F.col("extractor")]
