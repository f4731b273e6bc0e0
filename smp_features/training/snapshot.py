"""A pinned version of the training set as Parquet files, and the only place that reads them, through petastorm."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from smp_features.errors import SnapshotError, StageError
from smp_features.lake.files import Store
from smp_features.lake.lock import held
from smp_features.lake.tables import Lakehouse, canonical_json
from smp_features.model.digests import digest_of_file
from smp_features.model.inputs import MOST_WORDS
from smp_features.scratch import scratch_until_exit

logger = logging.getLogger(__name__)

Columns = dict[str, NDArray[np.generic]]

READER = "petastorm"
"""The library that reads; its version is one of those that decide a model."""

EXPORT_VERSION = 4
"""Part of the content key: raise it when the same table gives other files."""

ROWS_PER_FILE = 20_000
SNAPSHOTS = "snapshots"
MANIFEST = "manifest.json"

_SEAL = "sha256"
"""The manifest's key for the digest of the rest of it."""

_UNFINISHED_KEPT_S = 86_400.0
_FORMERLY_UNFINISHED = ".unfinished"
"""How former versions named what they had not finished."""

_PLAIN = ("row_id", "user", "event_time", "popularity", "label_known_at", "fold")
_INTEGERS = ("row_id", "user", "fold")


@dataclass(frozen=True)
class Snapshot:
    """What was exported, as its manifest says.

    Attributes:
        folder: Where the files are.
        content_key: Order-free hash of the training set's rows; compaction does not change it.
        version: Delta version of `training_set` that was exported.
        rows: Number of rows.
        row_ids: SHA-256 over the sorted row ids.
        files: Names of the Parquet files in `folder`.
        numbers: Numeric columns.
        words: Columns of hashed words.
        dims: Vector column to its width.
        vocabularies: Category column to its sorted values; a row's code is the position there, −1 for null.
        digests: File to its SHA-256 when it was exported.
    """

    folder: str
    content_key: str
    version: int
    rows: int
    row_ids: str
    files: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    dims: dict[str, int]
    vocabularies: dict[str, list[str]]
    digests: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns of the files."""
        vectors = (*self.dims, *(f"has_{name}" for name in self.dims))
        return (*_PLAIN, *self.numbers, *self.vocabularies, *self.words, *vectors)


def content_key(lakehouse: Lakehouse, version: int) -> str:
    """Return an order-free hash of the rows of one version of `training_set`: 32 hex digits.

    Two sums of 64-bit hashes and the count: equal rows give an equal key whatever the files they lie in.

    Raises:
        StageError: The training set is empty.
    """
    rows = lakehouse.read("training_set", version)
    sums = [
        F.sum(F.xxhash64(F.lit(salt), "row_hash").cast("decimal(38,0)")).cast("string").alias(f"sum{salt}")
        for salt in (0, 1)
    ]
    found = rows.agg(F.count("*").alias("rows"), *sums).collect()[0]
    if not found["rows"]:
        raise StageError("The training set is empty.", "Run `smp training-set` on a source with labelled posts.")
    described = [EXPORT_VERSION, found["rows"], found["sum0"], found["sum1"]]
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()[:32]


def export(lakehouse: Lakehouse, version: int, key: str) -> Snapshot:
    """Write a version of `training_set` as numeric Parquet under `<root>/snapshots/<key>/`, unless it is there.

    Strings break petastorm's loaders, so categories become int32 codes whose vocabulary goes into the manifest; `uid`
    becomes the int64 `user`, `event_ts` the double `event_time` and `label_known_at` a double too (Unix seconds).
    Buckets of words are cut and padded by −1 to one length, since petastorm wants rows of one shape.

    Args:
        lakehouse: Where the table is.
        version: The Delta version to pin.
        key: Its `content_key`.

    Raises:
        SnapshotError: Two rows share a `row_id`.
    """
    files, prefix = lakehouse.files, f"{SNAPSHOTS}/{key}"
    if files.exists(f"{prefix}/{MANIFEST}"):
        return load(_as_folder(files, prefix))
    table = lakehouse.read("training_set", version)
    rows: pd.DataFrame = table.select("row_id").toPandas()
    ids = rows["row_id"].to_numpy(dtype=np.int64)
    if len(np.unique(ids)) != len(ids):
        raise SnapshotError(
            f"training_set version {version} holds {len(ids) - len(np.unique(ids))} row ids twice.",
            "Run `smp training-set` again; if it stays, two posts' ids hash alike.",
        )
    catalogue = lakehouse.catalogue
    numbers, words, vectors = (catalogue.of_kind(kind) for kind in ("number", "buckets", "vector"))
    vocabularies = {column: _vocabulary(table, column) for column in catalogue.of_kind("category")}
    dims = table.select(*(F.max(F.size(column)).alias(column) for column in vectors)).collect()[0].asDict()
    files.delete_prefix(prefix)  # without a manifest it is nobody's
    parts = max(1, -(-len(ids) // ROWS_PER_FILE))
    numeric = (
        _numeric(table, numbers, vocabularies, words, vectors)
        .repartitionByRange(parts, "row_id")
        .sortWithinPartitions("row_id")
    )
    numeric.write.parquet(files.at(prefix))
    folder = _as_folder(files, prefix)
    parquet = tuple(sorted(path.name for path in folder.glob("*.parquet")))
    snapshot = Snapshot(
        folder=str(folder),
        content_key=key,
        version=version,
        rows=len(ids),
        row_ids=set_hash(ids),
        files=parquet,
        numbers=numbers,
        words=words,
        dims=dims,
        vocabularies=vocabularies,
        digests={name: digest_of_file(folder / name) for name in parquet},
    )
    files.put(f"{prefix}/{MANIFEST}", manifest_of(snapshot))
    logger.info("exported snapshot=%s rows=%d version=%d", key, snapshot.rows, version)
    return snapshot


def manifest_of(snapshot: Snapshot) -> str:
    """Return the manifest of a snapshot: its description, and the SHA-256 of that."""
    described = asdict(snapshot)
    del described["folder"]
    return json.dumps(described | {_SEAL: _seal(described)}, indent=1) + "\n"


def _seal(described: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(described).encode()).hexdigest()


def remove_unfinished(lakehouse: Lakehouse) -> None:
    """Remove snapshots without a manifest, which killed runs left.

    Where others may be writing one now, only those that have not grown for a day.
    """
    files = lakehouse.files
    youngest: dict[str, float] = {}
    complete = set()
    for entry in files.list(SNAPSHOTS):
        key = entry.name.split("/")[1]
        youngest[key] = max(youngest.get(key, 0.0), entry.modified_s)
        if entry.name.endswith(f"/{MANIFEST}") and not key.endswith(_FORMERLY_UNFINISHED):
            complete.add(key)
    for key in youngest.keys() - complete:
        if held(files.root) or abs(time.time() - youngest[key]) > _UNFINISHED_KEPT_S:
            logger.info("removing unfinished snapshot %s", key)
            files.delete_prefix(f"{SNAPSHOTS}/{key}")


def _as_folder(files: Store, prefix: str) -> Path:
    """Return a snapshot as a folder of this machine: where it lies, or a copy that stays until the process ends."""
    folder = files.local_folder(*prefix.split("/"))
    if folder is None:
        folder = scratch_until_exit("snapshot")
        for entry in files.list(prefix):
            files.fetch(entry.name, folder / entry.name.split("/")[-1])
    return folder


def load(folder: Path) -> Snapshot:
    """Return the snapshot of a folder.

    Raises:
        SnapshotError: The manifest cannot be read, was changed, or is of a version that recorded no digests.
    """
    try:
        described = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if described.pop(_SEAL) != _seal(described):
            raise SnapshotError(
                f"The manifest of the snapshot {folder} was changed after it was exported.", _AGAIN.format(folder)
            )
        described |= {name: tuple(described[name]) for name in ("files", "numbers", "words")}
        return Snapshot(folder=str(folder), **described)
    except (OSError, ValueError, TypeError, KeyError):
        raise SnapshotError(
            f"The manifest of the snapshot {folder} cannot be read.",
            "Delete that folder; `smp train` exports it again.",
        ) from None


def set_hash(row_ids: NDArray[np.int64]) -> str:
    """Return the SHA-256 of row ids as a multiset: their order does not matter, repetitions do."""
    return hashlib.sha256(np.sort(row_ids).astype("<i8").tobytes()).hexdigest()


def stream(snapshot: Snapshot, columns: tuple[str, ...] | None = None) -> Iterator[Columns]:
    """Read a snapshot once, through petastorm, a row group at a time, between two comparisons.

    Before anything is read, each file is compared with its digest; afterwards, the row ids with the snapshot's own.

    Args:
        snapshot: What to read.
        columns: Names besides `row_id`; None reads all.

    Yields:
        Arrays by column: float64 numbers (n,), int64 ids and codes (n,), int16 buckets (n, w), float32 vectors (n, d).

    Raises:
        SnapshotError: A file is gone, was changed or cannot be read, or the rows read are not exactly the snapshot's.
    """
    # petastorm 0.12 reads through what pyarrow 14 deprecates, and says so on every file.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"petastorm\..*")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"petastorm\..*")
    logging.getLogger("petastorm").setLevel(logging.WARNING)
    from petastorm import make_batch_reader

    wanted = snapshot.columns if columns is None else ("row_id", *columns)
    urls = [(Path(snapshot.folder) / name).absolute().as_uri() for name in snapshot.files]
    check_files(snapshot)
    seen: list[NDArray[np.int64]] = []
    try:
        with make_batch_reader(
            urls,
            schema_fields=[f"^{re.escape(name)}$" for name in wanted],
            num_epochs=1,
            reader_pool_type="dummy",
            shuffle_row_groups=False,
        ) as reader:
            for batch in reader:
                arrays = {name: _typed(snapshot, name, getattr(batch, name)) for name in wanted}
                seen.append(arrays["row_id"].astype(np.int64))
                yield arrays
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise SnapshotError(
            f"Snapshot {snapshot.content_key} cannot be read: {type(error).__name__}.", _AGAIN.format(snapshot.folder)
        ) from error
    verify(snapshot, np.concatenate(seen) if seen else np.empty(0, np.int64))


def check_files(snapshot: Snapshot) -> None:
    """Check that every file is the one that was exported: values can change under unchanged row ids.

    Raises:
        SnapshotError: One is gone, or has another SHA-256 than the manifest says.
    """
    for name in snapshot.files:
        path = Path(snapshot.folder) / name
        if not path.exists():
            raise SnapshotError(
                f"Snapshot {snapshot.content_key} lost its file {name}.", _AGAIN.format(snapshot.folder)
            )
        if digest_of_file(path) != snapshot.digests.get(name):
            raise SnapshotError(
                f"{name} of snapshot {snapshot.content_key} was changed after it was exported.",
                _AGAIN.format(snapshot.folder),
            )


def verify(snapshot: Snapshot, row_ids: NDArray[np.int64]) -> None:
    """Check that row ids are exactly the snapshot's, each once.

    Raises:
        SnapshotError: They are not.
    """
    if set_hash(row_ids) == snapshot.row_ids:
        return
    raise SnapshotError(
        f"Snapshot {snapshot.content_key} holds {snapshot.rows} rows, and an epoch read {len(row_ids)}, "
        f"{len(np.unique(row_ids))} of them distinct.",
        _AGAIN.format(snapshot.folder),
    )


def read(snapshot: Snapshot, columns: tuple[str, ...] | None = None) -> Columns:
    """Return a snapshot's columns in one piece, rows ordered by `row_id`, so that file layout decides nothing.

    Vectors lie in unnamed files in the directory for temporary files, mapped into memory: 486,194 posts with three of
    width 768 take 4.5 GB there, which the system reads again when it needs the memory. Other columns are held.

    Raises:
        SnapshotError: As `stream`.
    """
    whole: Columns = {}
    start = 0
    for chunk in stream(snapshot, columns):
        for name, values in chunk.items():
            if name not in whole:
                whole[name] = _room(snapshot, name, (snapshot.rows, *values.shape[1:]), values.dtype)
            whole[name][start : start + len(values)] = values[: snapshot.rows - start]
        start += len(chunk["row_id"])
    if (np.diff(whole["row_id"]) > 0).all():  # as it was exported
        return whole
    order = np.argsort(whole["row_id"], kind="stable")
    for name, values in whole.items():
        # Clipping changes nothing, and unlike raising it needs no copy of its own.
        whole[name] = np.take(values, order, axis=0, out=_room(snapshot, name, values.shape, values.dtype), mode="clip")
    return whole


def _room(snapshot: Snapshot, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    if name not in snapshot.dims or 0 in shape:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # what is mapped stays
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))


_AGAIN = "Delete {0} and run `smp train` again; it is exported anew."


def _vocabulary(table: DataFrame, column: str) -> list[str]:
    return sorted(row[0] for row in table.select(column).where(F.col(column).isNotNull()).distinct().collect())


def _numeric(
    table: DataFrame,
    numbers: Sequence[str],
    vocabularies: Mapping[str, Sequence[str]],
    words: Sequence[str],
    vectors: Sequence[str],
) -> DataFrame:
    codes = []
    for column, values in vocabularies.items():
        # array_position counts from one and gives zero for a value that is not there
        known = F.array(*(F.lit(value) for value in values)).cast("array<string>")
        position = F.call_function("array_position", known, F.col(column))  # F.array_position takes literals only
        codes.append(F.coalesce(position - 1, F.lit(-1)).cast("int").alias(column))
    padding = F.array_repeat(F.lit(-1).cast("bigint"), MOST_WORDS)
    buckets = [
        F.slice(F.concat(F.coalesce(name, F.array().cast("array<bigint>")), padding), 1, MOST_WORDS)
        .cast("array<int>")
        .alias(name)
        for name in words
    ]
    return table.select(
        F.col("row_id").cast("bigint"),
        F.xxhash64("uid").alias("user"),
        F.unix_micros("event_ts").cast("double").__truediv__(1e6).alias("event_time"),
        F.col("popularity").cast("double"),
        F.unix_micros("label_known_at").cast("double").__truediv__(1e6).alias("label_known_at"),
        F.col("fold").cast("int"),
        *(F.coalesce(F.col(name).cast("double"), F.lit(float("nan"))).alias(name) for name in numbers),
        *codes,
        *buckets,
        *(F.col(name).cast("array<float>") for name in vectors),
        *(F.col(f"has_{name}").cast("double") for name in vectors),
    )


def _typed(snapshot: Snapshot, name: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    if name in snapshot.dims:
        return np.ascontiguousarray(values, dtype=np.float32)
    if name in snapshot.words:
        return np.ascontiguousarray(values, dtype=np.int16)
    whole = name in _INTEGERS or name in snapshot.vocabularies
    return np.asarray(values, dtype=np.int64 if whole else np.float64)
