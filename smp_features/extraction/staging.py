"""Computed rows wait as files until they are published: marked when complete, inserted once, removed marker first."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from smp_features.errors import ReconciliationError
from smp_features.extraction import statuses
from smp_features.extraction.attempts import next_moment
from smp_features.extractors.base import Extractor
from smp_features.jvm import SPARK_FAILURES
from smp_features.lake.files import MARKER, Store
from smp_features.lake.lock import held
from smp_features.lake.staging import STAGING
from smp_features.lake.tables import Lakehouse, canonical_json

logger = logging.getLogger(__name__)

KEYS = "keys"

TEXT_KEY = "text_key"
"""Where a table of made texts holds the key of each text in `texts`."""

_publishing: dict[str, threading.Lock] = {}
_publishing_guard = threading.Lock()


@dataclass(frozen=True)
class Marker:
    """Says that a stage is complete, and what it must hold.

    Attributes:
        name: The extractor's name.
        extractor: Its fingerprint.
        run: The run that computed it.
        chunk: The chunk's folder, beside the marker.
        parts: Folders of Parquet files in it.
        rows: Distinct keys with rows to publish.
        transient: Key and status of the inputs that failed for now.
        shards: Shards of those keys.
        spec: Version of the feature table's columns.
    """

    name: str
    extractor: str
    run: str
    chunk: str
    parts: tuple[str, ...]
    rows: int
    transient: tuple[tuple[str, str], ...]
    shards: tuple[str, ...]
    spec: str

    def folder(self, lakehouse: Lakehouse) -> str:
        """Return the folder of the chunk."""
        return chunk_folder(lakehouse, self.name, self.run, self.chunk)

    @property
    def prefix(self) -> str:
        """The chunk's name under the root."""
        return _prefix(self.name, self.run, self.chunk)

    @property
    def path(self) -> str:
        """The marker's own name under the root."""
        return self.prefix + MARKER


def chunk_folder(lakehouse: Lakehouse, name: str, run: str, chunk: str) -> str:
    """Return where a chunk of the extractor with this name is staged; several may fill one table."""
    return lakehouse.files.at(_prefix(name, run, chunk))


def _prefix(*parts: str) -> str:
    return "/".join((STAGING, *parts))


def staged_schema(lakehouse: Lakehouse, extractor: Extractor) -> StructType:
    """Return the columns of staged rows: the key, the extractor's outputs, `status`, `error`, `computed_at`."""
    derived = {"shard", "extractor"} | ({TEXT_KEY} if extractor.makes_text is not None else set())
    names = lakehouse.spec(extractor.table).column_names
    return lakehouse.schema(extractor.table, [name for name in names if name not in derived])


def spec_version(lakehouse: Lakehouse, extractor: Extractor) -> str:
    """Return a short hash of a feature table's columns; rows staged under another are computed again."""
    columns = [[c.name, c.sql_type] for c in lakehouse.spec(extractor.table).columns]
    return hashlib.sha256(canonical_json(columns).encode()).hexdigest()[:12]


def read_staged(lakehouse: Lakehouse, extractor: Extractor, folder: str, parts: Iterable[str]) -> DataFrame:
    """Return staged rows, without a task's measurements and without suspects, whom a later part decides on."""
    reader = lakehouse.session.read.schema(staged_schema(lakehouse, extractor))
    rows = reader.parquet(*(f"{folder}/{part}" for part in parts))
    return rows.where(~F.col("status").isin(statuses.SUSPECT, statuses.MEASURED))


def stage_work(lakehouse: Lakehouse, name: str, run: str, work: DataFrame) -> DataFrame:
    """Write down the keys that a run has to do something about, and return them read back.

    They are read while the tables go on changing. Each file is sorted, so that a chunk's range skips most of it;
    sorting them all would work them out once more, to sample ranges.

    Args:
        lakehouse: The tables.
        name: The extractor's.
        run: The run.
        work: Columns `key` and `content`, see `plan.Work`.
    """
    folder = chunk_folder(lakehouse, name, run, KEYS)
    work.sortWithinPartitions("key").write.mode("overwrite").parquet(folder)
    return lakehouse.session.read.schema(work.schema).parquet(folder)


def mark(lakehouse: Lakehouse, marker: Marker) -> None:
    """Declare a stage complete."""
    lakehouse.files.put(marker.path, json.dumps(asdict(marker)))


def marked(lakehouse: Lakehouse, names: Sequence[str]) -> list[Marker]:
    """Return the complete stages of these extractors that wait to be published, oldest run first."""
    found = []
    for name in names:
        for entry in lakehouse.files.list(_prefix(name)):
            if entry.name.endswith(MARKER) and entry.name.count("/") == 3:
                marker = _read_marker(lakehouse.files, entry.name)
                if marker is not None:
                    found.append(marker)
    return sorted(found, key=lambda marker: (marker.run, names.index(marker.name), marker.chunk))


def publish(lakehouse: Lakehouse, extractor: Extractor, marker: Marker, *, counted: bool = False) -> bool:
    """Insert a complete stage's rows and note its transient failures, then remove the marker, then the files.

    Texts that were made go into `texts` before the rows, so that no row ever lacks its text. Repeating it after a kill
    at any point changes nothing more.

    Args:
        lakehouse: The tables.
        extractor: The one that the marker names; it may have another model by now.
        marker: Of the stage.
        counted: This process made the marker from the files just now, and found no key in them twice.

    Returns:
        Whether it was published here; False when somebody else did, or when it was made for other columns.

    Raises:
        ReconciliationError: The files do not hold the keys that the marker promises; they were removed.
    """
    files, folder = lakehouse.files, marker.folder(lakehouse)
    with _lock(lakehouse, extractor.table):
        if not files.exists(marker.path):
            return False
        if marker.spec != spec_version(lakehouse, extractor):
            logger.warning("%s: a stage of run %s has other columns and is dropped", extractor.table, marker.run)
            _remove(files, marker)
            return False
        try:
            distinct = counted or _check_count(lakehouse, extractor, marker, folder)
            _insert(lakehouse, extractor, marker, folder, distinct)
        except ReconciliationError:
            _remove(files, marker)
            raise
        except SPARK_FAILURES:
            if files.exists(marker.path):
                raise
            return False  # another driver published it first and removed the files
        _remove(files, marker)
    return True


def forget_run(lakehouse: Lakehouse, name: str, run: str) -> None:
    """Remove a run's folder when all its stages are published."""
    folder = _prefix(name, run)
    if not {entry.name.split("/")[3] for entry in lakehouse.files.list(folder)} - {KEYS}:
        lakehouse.files.delete_prefix(folder)


def _check_count(lakehouse: Lakehouse, extractor: Extractor, marker: Marker, folder: str) -> bool:
    """Compare a stage with its marker; return whether no key is in it twice."""
    staged = read_staged(lakehouse, extractor, folder, marker.parts)
    published = staged.where(~F.col("status").isin(*statuses.TRANSIENT))
    found = published.agg(F.count("*").alias("rows"), F.count_distinct(extractor.key).alias("keys")).collect()[0]
    keys = int(found["keys"])
    if keys != marker.rows:
        raise ReconciliationError(
            f"A stage for {extractor.table} holds {keys} keys, and its marker promises {marker.rows}.",
            "It was removed and nothing of it published; run the same command again to compute it anew.",
        )
    return keys == int(found["rows"])


def _insert(lakehouse: Lakehouse, extractor: Extractor, marker: Marker, folder: str, distinct: bool) -> None:
    rows = read_staged(lakehouse, extractor, folder, marker.parts)
    rows = rows.where(~F.col("status").isin(*statuses.TRANSIENT)).withColumn("extractor", F.lit(marker.extractor))
    if extractor.makes_text is not None:
        rows = rows.withColumn(TEXT_KEY, F.sha2(extractor.makes_text, 256))
        texts = rows.where(F.col("status") == statuses.OK).select(TEXT_KEY, F.col(extractor.makes_text).alias("text"))
        lakehouse.insert_new("texts", texts)
    if marker.rows:
        lakehouse.insert_new(extractor.table, rows, marker.shards, distinct)
    _note_attempts(lakehouse, marker)


def _note_attempts(lakehouse: Lakehouse, marker: Marker) -> None:
    if not marker.transient:
        return
    # A key is tried once in a run, so an attempt noted before a kill is not noted again by the repeat.
    noted = lakehouse.read("attempts").where(
        (F.col("run") == marker.run) & (F.col("stage") == marker.name) & (F.col("extractor") == marker.extractor)
    )
    known = {row["key"] for row in noted.select("key").collect()}
    same = {"stage": marker.name, "extractor": marker.extractor, "run": marker.run, "at": next_moment(lakehouse)}
    lakehouse.append(
        "attempts", [{"key": key, "status": status, **same} for key, status in marker.transient if key not in known]
    )


def _read_marker(files: Store, path: str) -> Marker | None:
    text = files.get_text(path)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        lists = {name: tuple(fields[name]) for name in ("parts", "shards")}
        transient = tuple((str(key), str(status)) for key, status in fields["transient"])
        return Marker(**fields | lists | {"transient": transient})
    except (ValueError, KeyError, TypeError):
        logger.warning("%s is not a marker of this version; its stage is not published", path)
        if held(files.root):  # nobody else may be writing it just now
            files.delete(path)
        return None


def _remove(files: Store, marker: Marker) -> None:
    files.delete(marker.path)
    files.delete_prefix(marker.prefix)


def _lock(lakehouse: Lakehouse, table: str) -> threading.Lock:
    with _publishing_guard:
        return _publishing.setdefault(lakehouse.identifier(table), threading.Lock())
