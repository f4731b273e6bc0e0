"""One contract for files under the root, whichever store holds them."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
import uuid
from pathlib import Path

import pytest

from smp_features.errors import ConfigError, FilesError, RootError
from smp_features.lake import files
from smp_features.lake.files import AddressStore, FolderStore, Store, open_store, parse_root


def _as_on_a_volume(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture(params=["folder", "volume", "fsspec-local", "fsspec-memory"])
def store(request, tmp_path, monkeypatch) -> Store:
    """An empty store of each kind."""
    if request.param == "fsspec-memory":
        return AddressStore(f"memory://lake-{uuid.uuid4().hex}")
    if request.param == "fsspec-local":
        return AddressStore(f"local://{tmp_path}/lake")
    if request.param == "volume":
        _as_on_a_volume(monkeypatch)
    return open_store(str(tmp_path / "lake"))


def test_what_was_put_is_what_is_got(store, tmp_path):
    (tmp_path / "of this machine").write_bytes(b"\x00\xff file")
    store.put("reports/bytes", b"\x00\xff")
    store.put("reports/text", "ä – 猫")
    store.put("reports/deep/er/file", tmp_path / "of this machine")
    assert store.get("reports/bytes") == b"\x00\xff"
    assert store.get_text("reports/text") == "ä – 猫"
    assert store.get("reports/deep/er/file") == b"\x00\xff file"
    assert store.fetch("reports/text", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_text(encoding="utf-8") == "ä – 猫"


def test_a_second_put_replaces_the_whole_object(store):
    store.put("a/b", b"long enough")
    store.put("a/b", b"short")
    assert store.get("a/b") == b"short"


def test_what_is_not_there_is_none_and_no_error(store, tmp_path):
    store.put("a/b", b"")
    assert store.get("a/b") == b""
    for name in ("a/c", "a", "z/b", "a/b/c"):
        assert store.get(name) is None
        assert not store.exists(name)
        assert not store.fetch(name, tmp_path / "nothing")
        store.delete(name)
        store.delete_prefix(name + "/further")
    assert store.list("z") == []
    assert store.exists("a/b")


def test_of_all_who_put_if_absent_one_does(store):
    results: list[bool] = []
    start = threading.Barrier(4)

    def put(content: str) -> None:
        start.wait()
        results.append(store.put_if_absent("lease/1", content))

    threads = [threading.Thread(target=put, args=(f"writer {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # fsspec's memory and local file systems look first and write then, so that only one after the other is certain.
    assert results.count(True) == 1 or isinstance(store, AddressStore)
    held = store.get_text("lease/1")
    assert store.put_if_absent("lease/1", "another") is False
    assert store.get_text("lease/1") == held


def test_a_prefix_lists_its_objects_with_sizes_and_times_and_nothing_else(store):
    before = time.time()
    for name, content in (("s/run1/b/2", b"22"), ("s/run1/a", b"1"), ("s/run10/a", b""), ("t", b"")):
        store.put(name, content)
    after = time.time()
    listed = store.list("s/run1")
    assert [(entry.name, entry.size) for entry in listed] == [("s/run1/a", 1), ("s/run1/b/2", 2)]
    assert all(before - 1 <= entry.modified_s <= after + 1 for entry in listed)
    assert [entry.name for entry in store.list("s")] == ["s/run1/a", "s/run1/b/2", "s/run10/a"]


def test_the_time_of_an_object_is_that_of_its_last_put(store):
    store.put("alive/run", b"1")
    (first,) = store.list("alive")
    time.sleep(0.05)
    store.put("alive/run", b"1")
    (second,) = store.list("alive")
    assert second.modified_s > first.modified_s


def test_an_object_or_a_prefix_is_deleted_and_its_neighbours_stay(store):
    for name in ("s/run1/a", "s/run1/b/c", "s/run10/a", "s/run1.json"):
        store.put(name, b"x")
    store.delete_prefix("s/run1")
    assert [entry.name for entry in store.list("s")] == ["s/run1.json", "s/run10/a"]
    store.delete("s/run1.json")
    store.delete("s/run1.json")
    assert [entry.name for entry in store.list("s")] == ["s/run10/a"]


def test_a_store_travels_to_workers(store):
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"  # noqa: S301 - what Spark does with it


def test_a_folder_counts_when_its_marker_does(store, tmp_path):
    made = tmp_path / "made"
    (made / "in").mkdir(parents=True)
    (made / "weights").write_bytes(b"w" * 100)
    (made / "in" / "config").write_text("{}")
    assert not store.has_folder("models/f1")
    store.put_folder("models/f1", made)
    assert store.has_folder("models/f1")
    store.fetch_folder("models/f1", tmp_path / "got")
    assert (tmp_path / "got" / "weights").read_bytes() == b"w" * 100
    assert (tmp_path / "got" / "in" / "config").read_text() == "{}"
    store.put("models/f1/weights", b"cut")
    with pytest.raises(FilesError, match="lost its file weights"):
        store.fetch_folder("models/f1", tmp_path / "again")
    store.delete("models/f1.json")
    with pytest.raises(FilesError, match="never completed"):
        store.fetch_folder("models/f1", tmp_path / "never")


def test_the_marker_of_a_folder_is_put_last(store, tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    for name in ("a", "z"):
        (tmp_path / "made" / name).write_text(name)
    put: list[str] = []
    original = type(store).put
    monkeypatch.setattr(
        type(store), "put", lambda self, name, content: put.append(name) or original(self, name, content)
    )
    store.put_folder("models/f1", tmp_path / "made")
    assert put == ["models/f1/a", "models/f1/z", "models/f1.json"]


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../../b", "./a"])
def test_a_name_stays_under_the_root(store, name):
    for action in (store.get, store.list, store.delete, store.delete_prefix, store.exists):
        with pytest.raises(ValueError, match="no name of an object"):
            action(name)


def test_readers_never_see_half_an_object(tmp_path):
    store = FolderStore(str(tmp_path))
    whole = [bytes([n]) * 3_000_000 for n in range(2)]
    store.put("a/b", whole[0])
    done = threading.Event()

    def write() -> None:
        for n in range(40):
            store.put("a/b", whole[n % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(store.get("a/b"))
    writer.join()
    assert seen <= set(whole)


def test_a_put_that_fails_leaves_the_old_object_and_nothing_beside_it(tmp_path, monkeypatch):
    store = FolderStore(str(tmp_path))
    store.put("a/b", b"old")

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FilesError, match="a/b cannot be written: No space left on device") as caught:
        store.put("a/b", b"new")
    assert caught.value.exit_status == 1
    assert store.get("a/b") == b"old"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_what_a_killed_process_left_beside_an_object_is_never_listed_and_goes_with_time(tmp_path):
    store = FolderStore(str(tmp_path))
    store.put("a/b", b"old")
    left = tmp_path / "a" / ".b.0123.writing"
    left.write_bytes(b"half")
    store.put("a/b", b"new")
    assert left.exists()  # somebody may be writing it just now
    assert [entry.name for entry in store.list("a")] == ["a/b"]
    os.utime(left, (1, 1))
    store.put("a/b", b"newer")
    assert os.listdir(tmp_path / "a") == ["b"]


def test_folders_that_hold_nothing_are_pruned_and_others_stay(tmp_path):
    store = FolderStore(str(tmp_path))
    (tmp_path / "s" / "t" / "run").mkdir(parents=True)
    store.put("s/u/run/a", b"")
    store.prune("s")
    assert not (tmp_path / "s" / "t").exists()
    assert store.exists("s/u/run/a")
    store.delete_prefix("s/u/run")
    store.prune("s")
    assert os.listdir(tmp_path) == []


def test_a_store_without_put_if_absent_says_so():
    store = AddressStore("ftp://host/lake")
    store._open = lambda name: (type("Ftp", (), {"protocol": "ftp"}), name)  # type: ignore[method-assign]
    with pytest.raises(RootError, match="cannot put an object only where there is none"):
        store.put_if_absent("lease/1", b"")


def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch):
    import fsspec.core

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"needs a driver.*pip install s3fs"):
        AddressStore("s3a://bucket/lake").get("a")


def test_spark_and_the_driver_of_a_store_each_get_the_address_they_know(monkeypatch):
    import fsspec.core

    asked = []

    def noted(address, **_):
        asked.append(address)
        return type("S3", (), {"isfile": lambda path: False}), address

    monkeypatch.setattr(fsspec.core, "url_to_fs", noted)
    store = open_store("S3a://bucket/lake/")
    assert store.at("staging", "captions") == "s3a://bucket/lake/staging/captions"
    store.exists("staging/a")
    assert asked == ["s3://bucket/lake/staging/a"]
    assert store.local_folder() is None


HERE = os.path.abspath(".")


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("lake", f"{HERE}/lake"),
        ("./a:b", f"{HERE}/a:b"),
        ("/a/b/", "/a/b"),
        ("~/lake", os.path.expanduser("~/lake")),
        ("file:/a/b", "/a/b"),
        ("file:///a/with%20space", "/a/with space"),
        ("dbfs:/Volumes/main/smp/lake", "/Volumes/main/smp/lake"),
        ("S3://Bucket/Lake/", "s3://Bucket/Lake"),
        ("abfss://c@account.dfs.core.windows.net/lake", "abfss://c@account.dfs.core.windows.net/lake"),
        ("hdfs:///user/me/lake", "hdfs:///user/me/lake"),
        ("gs://bucket", "gs://bucket"),
    ],
)
def test_a_root_has_one_spelling(root, expected):
    assert parse_root(root) == expected
    assert parse_root(expected) == expected
    assert files.is_local(root) == expected.startswith("/")
    assert (open_store(root).local_folder() is not None) == expected.startswith("/")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("~nobody-of-this-name/lake", "names a home folder"),
        ("s3:/bucket/lake", r"is not an address. Write s3://<bucket"),
        ("s3:bucket/lake", r"is not an address. Write s3://<bucket"),
        ("s3:///lake", r"is not an address"),
        ("s3://", r"is not an address"),
        ("file:lake", "names no absolute path"),
        ("file://lake/here", "names no absolute path"),
        ("dbfs:/lake", r"lies on DBFS\. Use a volume"),
        ("s3q://bucket/lake", r"no known kind of store\. Did you mean 's3.?'"),
        ("lake:1", "no known kind of store"),
    ],
)
def test_what_looks_like_an_address_and_is_none_is_refused(root, words):
    with pytest.raises(RootError, match=words) as caught:
        open_store(root)
    assert caught.value.exit_status == 2
