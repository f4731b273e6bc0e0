"""Where things stand: rows per stage, and typed errors with example keys.

The counts are SQL that DuckDB and Spark read alike, so that a root without a JVM and a catalog are counted by one text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from smp_features.config import Config
from smp_features.errors import UsageError, nearest
from smp_features.extraction import statuses
from smp_features.extractors.base import Extractor
from smp_features.lake.readers import Reader, open_reader

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXAMPLES = 3
"""Example keys shown per kind of error."""

COUNTS = ("wanted", "ok", "failed", "left", "given_up")
"""Counts of a stage's rows; see `runs.Summary`."""


def status_of(session: SparkSession | None, config: Config) -> list[dict[str, Any]]:
    """Return where every stage stands, in the order they run.

    Counts of the extractors are taken from the tables as they are now; those of the other stages are what their last
    run counted, and null before there was one.

    Args:
        session: Counts in Spark; None counts in DuckDB, which reads a root that is a folder, without a JVM.
        config: Where the tables are, and which extractors are meant.

    Returns:
        Rows of `stage`, `wanted`, `ok`, `failed`, `left`, `given_up` (rows; see `runs.Summary`), `last_outcome`,
        `last_finished_at` (UTC), `last_run` and `message`, the last three null before the first run.

    Raises:
        UsageError: There are no tables yet, or they are of another version's layout.
        StageError: A table is not there.
        ModelError: A configured model does not exist, so that its rows cannot be told.

    Example:
        >>> [row["wanted"] for row in status_of(spark, config) if row["stage"] == "extract/perplexity"]
        [0]
    """
    reader = open_reader(config, session)
    reader.require(["runs"])
    last = {row["stage"]: row for row in reader.rows(_LAST_RUNS, ["runs"])}
    counts = {
        extractor.stage: _count(reader, extractor, config.extraction.max_attempts)
        for extractor in reader.extractors.values()
    }
    # The stages as their summaries name them; one that this version does not know comes last.
    order = ("ingest", *counts, "features", "training-set", "train", "score", "report")
    known = {stage: place for place, stage in enumerate(order)}
    rows = []
    for stage in sorted({*order, *last} - {"extract"}, key=lambda stage: (known.get(stage, len(known)), stage)):
        run = last.get(stage, {})
        fields = {name: counts.get(stage, run).get(name) for name in COUNTS}
        latest = {f"last_{name}": run.get(name) for name in ("outcome", "finished_at", "run")}
        rows.append({"stage": stage, **fields, **latest, "message": run.get("message")})
    return rows


def errors_of(session: SparkSession | None, config: Config, stage: str | None = None) -> list[dict[str, Any]]:
    """Return every kind of error with its number of rows and a few keys; never any content.

    Args:
        session: Counts in Spark; None counts in DuckDB.
        config: Decides which extractors' rows are meant.
        stage: `ingest`, or an extractor with or without `extract/`; None means all.

    Returns:
        Rows of `stage`, `kind` (`permanent`, `transient`, `refused` source rows, or `image` of posts), `status`,
        `rows`, `message` (an example) and `keys` (up to 3, comma-separated).

    Raises:
        UsageError: There is no such stage, there are no tables yet, or they are of another version's layout.
    """
    reader = open_reader(config, session)
    extractors = reader.extractors
    wanted = _stage_named(stage, extractors)
    parts, tables = [], ["attempts"]
    if wanted in (None, "ingest"):
        parts.append(_INGEST_ERRORS)
        tables += ["quarantine", "posts", "images"]
    for extractor in extractors.values():
        if wanted in (None, extractor.name):
            parts.append(_extraction_errors(extractor, extractor.fingerprint))
            tables.append(extractor.table)
    kinds: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in reader.rows(_with_examples(parts), dict.fromkeys(tables)):
        kind = kinds.setdefault(
            (row["stage"], row["kind"], row["status"]),
            {name: row[name] for name in ("stage", "kind", "status")}
            | {"rows": row["counted"], "message": row["example"], "keys": []},
        )
        kind["keys"].append(row["key"])
    order = {"ingest": -1, **{extractor.stage: place for place, extractor in enumerate(extractors.values())}}
    found = [kind | {"keys": ", ".join(sorted(kind["keys"]))} for kind in kinds.values()]
    return sorted(found, key=lambda row: (order[row["stage"]], row["kind"], -row["rows"], row["status"]))


def _stage_named(stage: str | None, extractors: Iterable[str]) -> str | None:
    if stage is None:
        return None
    name = stage.removeprefix("extract/")
    if name != "ingest" and name not in extractors:
        raise UsageError(f"There are no typed errors of a stage '{stage}'.", nearest(name, ["ingest", *extractors]))
    return name


# -- SQL that DuckDB and Spark read alike ---------------------------------------------------------------------------
# What is put into it are names of tables, columns and extractors, which are words, and fingerprints, which are hex.

_LAST_RUNS = """
SELECT stage, wanted, ok, failed, latest.left, given_up, outcome, finished_at, run, message
FROM (
  SELECT runs.*, ROW_NUMBER() OVER (PARTITION BY stage ORDER BY started_at DESC, finished_at DESC) AS place FROM runs
) AS latest
WHERE place = 1"""


def _count(reader: Reader, extractor: Extractor, max_attempts: int) -> Mapping[str, int]:
    """Return an extractor's rows by `COUNTS`: every key that posts want stands in exactly one of the last four."""
    makers = [each for each in reader.extractors.values() if each.makes_text is not None and extractor.reads_made_texts]
    sql = _ledger(extractor, extractor.fingerprint, {each.table: each.fingerprint for each in makers}, max_attempts)
    tables = ["posts", extractor.contents, extractor.table, "attempts", *(each.table for each in makers)]
    states = {row["state"]: row["counted"] for row in reader.rows(sql, dict.fromkeys(tables))}
    counts = {name: int(states.get(name, 0)) for name in COUNTS[1:]}
    return {"wanted": sum(counts.values()), **counts}


def _ledger(extractor: Extractor, fingerprint: str, makers: Mapping[str, str], max_attempts: int) -> str:
    """Return the SQL that counts an extractor's wanted keys by where they stand.

    Args:
        extractor: The extractor.
        fingerprint: Its own.
        makers: The tables of the texts that it is wanted for beside titles, and the fingerprints that made them.
        max_attempts: Transient failures, since the last reset, after which a key is given up.
    """
    key, mine = extractor.key, f"(extractor IS NULL OR extractor = '{fingerprint}')"
    if extractor.reads == "image":
        wanted = "SELECT image_key AS content_key FROM posts WHERE image_key IS NOT NULL"
    else:
        wanted = "SELECT title_key AS content_key FROM posts"
    for table, maker in makers.items():
        wanted += f"""
  UNION ALL SELECT text_key FROM {table} WHERE extractor = '{maker}' AND status = '{statuses.OK}'
    AND image_key IN (SELECT image_key FROM posts WHERE image_key IS NOT NULL)"""
    usable = "status" if extractor.reads == "image" else f"'{statuses.OK}'"
    return f"""
WITH wanted AS (SELECT DISTINCT content_key FROM ({wanted}) AS keys),
done AS (
  SELECT {key} AS content_key, MAX(status) AS status FROM {extractor.table}
  WHERE extractor = '{fingerprint}' GROUP BY {key}
),
contents AS (SELECT {key} AS content_key, MAX({usable}) AS status FROM {extractor.contents} GROUP BY {key}),
cleared AS (
  SELECT MAX(attempts.at) AS since FROM attempts
  WHERE stage = '{extractor.name}' AND {mine} AND status = '{statuses.RESET}' AND key IS NULL
),
noted AS (
  SELECT attempts.key AS content_key, attempts.status AS status, attempts.at AS tried_at
  FROM attempts CROSS JOIN cleared
  WHERE stage = '{extractor.name}' AND {mine} AND key IS NOT NULL
    AND (cleared.since IS NULL OR attempts.at > cleared.since)
),
resets AS (
  SELECT content_key, MAX(tried_at) AS since FROM noted WHERE status = '{statuses.RESET}' GROUP BY content_key
),
tries AS (
  SELECT noted.content_key AS content_key, COUNT(*) AS counted
  FROM noted LEFT JOIN resets ON noted.content_key = resets.content_key
  WHERE noted.status <> '{statuses.RESET}' AND (resets.since IS NULL OR noted.tried_at > resets.since)
  GROUP BY noted.content_key
),
states AS (
  SELECT CASE
    WHEN done.status = '{statuses.OK}' THEN 'ok'
    WHEN done.status IS NOT NULL THEN 'failed'
    WHEN contents.status <> '{statuses.OK}' THEN 'left'
    WHEN tries.counted >= {max_attempts} THEN 'given_up'
    ELSE 'left' END AS state
  FROM wanted
  LEFT JOIN done ON wanted.content_key = done.content_key
  LEFT JOIN contents ON wanted.content_key = contents.content_key
  LEFT JOIN tries ON wanted.content_key = tries.content_key
)
SELECT state, COUNT(*) AS counted FROM states GROUP BY state"""


# Posts are counted, since a missing file has no image; the message is the image's where there is one.
_INGEST_ERRORS = f"""
SELECT 'ingest' AS stage, 'refused' AS kind, reason AS status, source_row AS key, detail AS message FROM quarantine
UNION ALL
SELECT 'ingest' AS stage, 'image' AS kind, posts.image_status AS status, posts.pid AS key, images.error AS message
FROM posts LEFT JOIN images ON posts.image_key = images.image_key AND images.status <> '{statuses.OK}'
WHERE posts.image_status <> '{statuses.OK}'"""


def _extraction_errors(extractor: Extractor, fingerprint: str) -> str:
    # A failure that a later try made good is no error any more.
    return f"""
SELECT '{extractor.stage}' AS stage, 'permanent' AS kind, status, {extractor.key} AS key, error AS message
FROM {extractor.table} WHERE extractor = '{fingerprint}' AND status <> '{statuses.OK}'
UNION ALL
SELECT '{extractor.stage}' AS stage, 'transient' AS kind, status, key,
  'tried ' || CAST(COUNT(*) AS STRING) || ' times' AS message
FROM attempts
WHERE stage = '{extractor.name}' AND extractor = '{fingerprint}' AND status <> '{statuses.RESET}' AND NOT EXISTS (
  SELECT 1 FROM {extractor.table} AS made WHERE made.extractor = '{fingerprint}' AND made.{extractor.key} = attempts.key
)
GROUP BY key, status"""


def _with_examples(parts: Iterable[str]) -> str:
    """Return the SQL that counts rows of `stage, kind, status, key, message` by kind, one row per example key."""
    each = "PARTITION BY stage, kind, status"
    return f"""
WITH found AS ({" UNION ALL ".join(parts)}),
ranked AS (
  SELECT found.*, ROW_NUMBER() OVER ({each} ORDER BY key) AS place, COUNT(*) OVER ({each}) AS counted,
    MIN(message) OVER ({each}) AS example
  FROM found
)
SELECT stage, kind, status, key, counted, example FROM ranked
WHERE place <= {EXAMPLES} ORDER BY stage, kind, status, key"""
