"""A snapshot is the training set, row for row, and every reading proves it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame

from smp_features.config import Config
from smp_features.errors import SnapshotError, StageError
from smp_features.lake.files import open_store
from smp_features.lake.lock import writing
from smp_features.lake.schema import Schema
from smp_features.lake.tables import Lakehouse
from smp_features.model.digests import digest_of_file
from smp_features.model.predictor import fingerprint_columns
from smp_features.spark_failures import explained
from smp_features.training import snapshot as snapshots
from smp_features.training.snapshot import Snapshot

CATALOGUE = Schema.of(Config()).catalogue
NUMBERS, CATEGORIES, WORDS, VECTORS = map(CATALOGUE.of_kind, ("number", "category", "buckets", "vector"))
WIDTH = 4


def write(folder: Path, ids: list[np.ndarray]) -> Snapshot:
    """Files of a snapshot as Spark would leave them, from plain pyarrow."""
    folder.mkdir()
    everything = np.concatenate(ids).astype(np.int64)
    snapshot = Snapshot(
        str(folder),
        "k",
        3,
        len(everything),
        snapshots.set_hash(everything),
        tuple(f"part-{number}.parquet" for number in range(len(ids))),
        NUMBERS,
        WORDS,
        dict.fromkeys(VECTORS, WIDTH),
        {name: [] for name in CATEGORIES},
        {},
    )
    for number, part in enumerate(ids):
        columns: dict[str, object] = {name: np.zeros(len(part)) for name in snapshot.columns}
        columns |= {name: part.astype(np.int64) for name in ("row_id", "user")}
        columns |= {name: np.zeros(len(part), np.int32) for name in ("fold", *CATEGORIES)}
        columns |= {"popularity": part.astype(float) / 2}
        vectors = [[float(row)] * WIDTH for row in part]
        columns |= {name: pa.array(vectors, pa.list_(pa.float32())) for name in VECTORS}
        buckets = [[int(row), -1] for row in part]
        columns |= {name: pa.array(buckets, pa.list_(pa.int32())) for name in WORDS}
        pq.write_table(pa.table(columns), folder / snapshot.files[number], row_group_size=7)
    return sealed(snapshot)


def sealed(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, as if its files had been exported as they are now."""
    folder = Path(snapshot.folder)
    return replace(snapshot, digests={name: digest_of_file(folder / name) for name in snapshot.files})


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    ids = np.random.default_rng(0).permutation(60)
    return write(tmp_path / "snapshot", [ids[:25], ids[25:50], ids[50:]])


def test_all_rows_come_back_ordered_by_row_id(snapshot):
    rows = snapshots.read(snapshot)
    assert rows["row_id"].tolist() == list(range(60))
    assert rows["popularity"].tolist() == [number / 2 for number in range(60)]
    assert rows["image_embedding"].shape == (60, WIDTH) and rows["image_embedding"].dtype == np.float32
    assert (rows["image_embedding"][:, 2] == np.arange(60)).all()
    assert isinstance(rows["image_embedding"].base, np.memmap)  # on disk, as memory allows in memory
    assert rows["tag_buckets"].dtype == np.int16 and rows["tag_buckets"].tolist() == [[row, -1] for row in range(60)]
    assert rows["fold"].dtype == np.int64 and set(rows) == set(snapshot.columns)


def test_a_file_that_is_gone_is_noticed(snapshot):
    (Path(snapshot.folder) / snapshot.files[1]).unlink()
    with pytest.raises(SnapshotError, match="lost its file part-1"):
        snapshots.read(snapshot)


def test_rows_that_are_lost_are_noticed(snapshot):
    path = Path(snapshot.folder) / snapshot.files[0]
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(SnapshotError, match="holds 60 rows, and an epoch read 59"):
        snapshots.read(sealed(snapshot))


def test_rows_that_come_twice_are_noticed(snapshot):
    twice = replace(snapshot, files=(*snapshot.files, snapshot.files[0]))
    with pytest.raises(SnapshotError, match="read 85, 60 of them distinct"):
        snapshots.read(twice)


def test_another_row_in_place_of_one_is_noticed(snapshot):
    path = Path(snapshot.folder) / snapshot.files[2]
    table = pq.read_table(path)
    ids = table["row_id"].to_numpy().copy()
    ids[0] = 999
    pq.write_table(table.set_column(table.schema.get_field_index("row_id"), "row_id", pa.array(ids)), path)
    with pytest.raises(SnapshotError, match="read 60, 60 of them distinct"):
        snapshots.read(sealed(snapshot))


@pytest.mark.parametrize("column", ["popularity", "image_embedding", "event_hour", "fold", "tag_buckets"])
def test_values_that_changed_under_unchanged_ids_are_noticed_before_anything_is_read(snapshot, column, monkeypatch):
    path = Path(snapshot.folder) / snapshot.files[1]
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[0], values[-1] = values[-1], [*values[0][:-1], 7] if isinstance(values[0], list) else values[0] + 1
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table[column].type)), path, row_group_size=7)
    monkeypatch.setattr("petastorm.make_batch_reader", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(SnapshotError, match=r"part-1\.parquet of snapshot k was changed.*run `smp train` again"):
        snapshots.read(snapshot)


def test_a_manifest_that_was_changed_is_noticed(snapshot):
    written = json.loads(snapshots.manifest_of(snapshot))
    folder = Path(snapshot.folder)
    (folder / snapshots.MANIFEST).write_text(json.dumps(written))
    assert snapshots.load(folder) == snapshot
    for change in ({"version": 4}, {"vocabularies": {"category": ["b", "a"]}}, {"digests": {}}):
        (folder / snapshots.MANIFEST).write_text(json.dumps(written | change))
        with pytest.raises(SnapshotError, match="was changed after it was exported"):
            snapshots.load(folder)
    del written["sha256"]
    (folder / snapshots.MANIFEST).write_text(json.dumps(written))
    with pytest.raises(SnapshotError, match="cannot be read"):
        snapshots.load(folder)


def test_a_damaged_file_is_noticed(snapshot):
    path = Path(snapshot.folder) / snapshot.files[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(SnapshotError, match=r"part-0\.parquet of snapshot k was changed"):
        snapshots.read(snapshot)
    with pytest.raises(SnapshotError, match="cannot be read"):
        snapshots.read(sealed(snapshot))


def test_every_epoch_is_checked(snapshot):
    first = list(snapshots.stream(snapshot, ("popularity",)))
    assert sum(len(chunk["row_id"]) for chunk in first) == 60 and set(first[0]) == {"row_id", "popularity"}
    path = Path(snapshot.folder) / snapshot.files[0]
    pq.write_table(pq.read_table(path).slice(3), path)
    with pytest.raises(SnapshotError, match="read 57"):
        list(snapshots.stream(sealed(snapshot), ("popularity",)))


def test_a_manifest_that_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(SnapshotError, match="Delete that folder"):
        snapshots.load(tmp_path)


def test_row_ids_are_hashed_as_a_multiset():
    ids = np.array([3, 1, 2], np.int64)
    assert snapshots.set_hash(ids) == snapshots.set_hash(ids[::-1])
    assert snapshots.set_hash(ids) != snapshots.set_hash(np.array([3, 1, 2, 2], np.int64))


@pytest.mark.spark
def test_an_export_is_the_pinned_training_set(lake):
    version = lake.lakehouse.version("training_set")
    key = snapshots.content_key(lake.lakehouse, version)
    snapshot = snapshots.export(lake.lakehouse, version, key)
    rows = snapshots.read(snapshot)
    expected = lake.lakehouse.read("training_set", version).toPandas().sort_values("row_id").reset_index(drop=True)
    assert rows["row_id"].tolist() == expected["row_id"].tolist()
    for name in ("popularity", "title_char_count", "user_photo_count", "caption_title_similarity"):
        assert np.array_equal(rows[name], expected[name].to_numpy(float), equal_nan=True), name
    for name in VECTORS:
        assert np.array_equal(rows[name], np.stack(expected[name]).astype(np.float32)), name
    seconds = [moment.replace(tzinfo=UTC).timestamp() for moment in expected["event_ts"]]
    assert rows["event_time"].tolist() == rows["label_known_at"].tolist() == seconds
    tags = [[bucket for bucket in buckets if bucket >= 0] for buckets in rows["tag_buckets"]]
    assert tags == [list(buckets) for buckets in expected["tag_buckets"]] and rows["tag_buckets"].shape[1] == 75
    words = np.array([*snapshot.vocabularies["category"], None], dtype=object)
    assert words[rows["category"]].tolist() == [None if v is None else v for v in expected["category"]]
    assert len(np.unique(rows["user"])) == expected["uid"].nunique()


@pytest.mark.spark
def test_a_snapshot_is_written_once(lake):
    version = lake.lakehouse.version("training_set")
    key = snapshots.content_key(lake.lakehouse, version)
    first = snapshots.export(lake.lakehouse, version, key)
    times = {path: path.stat().st_mtime_ns for path in Path(first.folder).iterdir()}
    assert snapshots.export(lake.lakehouse, version, key) == first
    assert {path: path.stat().st_mtime_ns for path in Path(first.folder).iterdir()} == times


@pytest.mark.spark
def test_an_export_that_was_cut_off_is_made_again(lake):
    version = lake.lakehouse.version("training_set")
    key = snapshots.content_key(lake.lakehouse, version)
    first = snapshots.export(lake.lakehouse, version, key)
    folder = Path(first.folder)
    (folder / snapshots.MANIFEST).unlink()
    shutil.copy(folder / first.files[0], folder / "part-stray.parquet")
    again = snapshots.export(lake.lakehouse, version, key)
    assert again.row_ids == first.row_ids and not (folder / "part-stray.parquet").exists()
    snapshots.read(again)


def _lakehouse_of(root: str, *names: str) -> SimpleNamespace:
    files = open_store(root)
    for name in names:
        files.put(f"snapshots/{name}", "{}")
    return SimpleNamespace(files=files)


def test_what_killed_exports_left_is_removed_and_what_is_finished_stays(tmp_path):
    kept = ("done/manifest.json", "done/part-0.parquet")
    cut_off = ("cut/part-0.parquet", "older.unfinished/manifest.json")
    lakehouse = _lakehouse_of(str(tmp_path), *kept, *cut_off)

    def present() -> list[str]:
        return [entry.name.removeprefix("snapshots/") for entry in lakehouse.files.list("snapshots")]

    snapshots.remove_unfinished(lakehouse)
    assert present() == sorted((*kept, *cut_off))  # where nothing is held, another may be writing them
    os.utime(tmp_path / "snapshots" / "cut" / "part-0.parquet", (1, 1))
    snapshots.remove_unfinished(lakehouse)
    assert present() == sorted((*kept, cut_off[1]))
    with writing(str(tmp_path)):
        snapshots.remove_unfinished(lakehouse)
    assert present() == sorted(kept)


def test_a_snapshot_in_a_store_is_read_through_a_copy_on_this_machine(snapshot):
    lakehouse = _lakehouse_of(f"memory://lake-{uuid.uuid4().hex}")
    for name in snapshot.files:
        lakehouse.files.put(f"snapshots/k/{name}", Path(snapshot.folder) / name)
    lakehouse.files.put(f"snapshots/k/{snapshots.MANIFEST}", snapshots.manifest_of(snapshot))
    copy = snapshots.export(lakehouse, 3, "k")
    assert copy == replace(snapshot, folder=copy.folder) and copy.folder != snapshot.folder
    assert snapshots.read(copy)["row_id"].tolist() == list(range(60))


def training_row(lakehouse: Lakehouse, number: int) -> DataFrame:
    zeros = {name: [0.0] for name in VECTORS} | {f"has_{name}": 0.0 for name in VECTORS}
    schema = lakehouse.schema("training_set")
    texts = dict.fromkeys(("uid", "time_rules", "features_key", *fingerprint_columns(schema.names)), "x")
    made = zeros | texts | {"pid": f"p{number}", "row_id": number, "row_hash": f"h{number}", "popularity": 1.0}
    made |= {"fold": 0, **dict.fromkeys(("event_ts", "label_known_at"), datetime(2016, 1, 1, tzinfo=UTC))}
    return lakehouse.session.createDataFrame([tuple(made.get(name) for name in schema.names)], schema)


@pytest.mark.spark
def test_vacuum_after_an_export_takes_nothing_from_training_and_before_it_is_told(lakehouse):
    for number in range(2):
        lakehouse.insert_new("training_set", training_row(lakehouse, number))
    version = lakehouse.version("training_set")
    exported = snapshots.export(lakehouse, version, "before")
    lakehouse.optimize("training_set")  # leaves the pinned version's files to the vacuum
    session = lakehouse.session
    session.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        session.sql(f"VACUUM {lakehouse.identifier('training_set')} RETAIN 0 HOURS")
    finally:
        session.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    assert sorted(snapshots.read(exported, ())["row_id"]) == [0, 1]
    with pytest.raises(StageError, match="a file of table training_set is gone"), explained("train"):
        snapshots.export(lakehouse, version, "after")


@pytest.mark.spark
def test_a_new_row_changes_the_content_key_and_compaction_does_not(lakehouse):
    keys = []
    for number in range(2):
        lakehouse.insert_new("training_set", training_row(lakehouse, number))
        keys.append(snapshots.content_key(lakehouse, lakehouse.version("training_set")))
    assert keys[0] != keys[1]
    version = lakehouse.version("training_set")
    lakehouse.optimize("training_set")
    assert lakehouse.version("training_set") > version
    assert snapshots.content_key(lakehouse, lakehouse.version("training_set")) == keys[1]


@pytest.mark.spark
def test_an_empty_training_set_is_refused(lakehouse):
    with pytest.raises(StageError, match="empty"):
        snapshots.content_key(lakehouse, lakehouse.version("training_set"))
