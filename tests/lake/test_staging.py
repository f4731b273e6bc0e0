"""Staging belongs to runs: a living run keeps its own, and what a dead one left goes with the next, on every root."""

from __future__ import annotations

import os
import threading
import time
import uuid
from types import SimpleNamespace

import pytest

from smp_features.errors import FilesError
from smp_features.lake import staging
from smp_features.lake.files import FolderStore, Store, open_store
from smp_features.lake.lock import writing
from smp_features.lake.staging import DEAD_AFTER_S, running, staged


class Clock:
    """Sets the time of an object, as if it had been put then."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, name: str, ago_s: float) -> None:
        folder = self._store.local_folder(*name.split("/"))
        if folder is not None:
            os.utime(folder, (time.time() - ago_s, time.time() - ago_s))
            return
        from datetime import UTC, datetime, timedelta

        from fsspec.implementations.memory import MemoryFileSystem

        path = MemoryFileSystem._strip_protocol(f"{self._store.root}/{name}")
        MemoryFileSystem.store[path].created = datetime.now(UTC) - timedelta(seconds=ago_s)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> Store:
    """An empty root of each kind."""
    return open_store(str(tmp_path / "lake") if request.param == "folder" else f"memory://lake-{uuid.uuid4().hex}")


@pytest.fixture
def put_at(store) -> Clock:
    """Sets the times of objects."""
    return Clock(store)


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.list("staging")]


def leave(store: Store, put_at: Clock, *objects: str, beat_ago_s: float | None = None, ago_s: float = 0.0) -> None:
    """Leave what a killed run `old` had staged."""
    for name in objects:
        store.put(f"staging/{name}", "x")
        put_at(f"staging/{name}", ago_s)
    if beat_ago_s is not None:
        store.put("staging/old.alive", "{}")
        put_at("staging/old.alive", beat_ago_s)


LEFT = ("captions/old/00000-0/all-0/part.parquet", "captions/old/keys/part.parquet", "predictions/old/part.parquet")


def test_a_run_has_a_heartbeat_while_it_is_alive(store):
    with running(store, "new"), running(store, "new"):
        assert names(store) == ["staging/new.alive"]
    assert names(store) == []


def test_a_heartbeat_is_renewed(store, monkeypatch):
    monkeypatch.setattr(staging, "BEAT_S", 0.02)
    with running(store, "new"):
        (first,) = store.list("staging")
        deadline = time.monotonic() + 10
        while store.list("staging")[0].modified_s <= first.modified_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    time.sleep(0.1)
    assert names(store) == []  # nor does it come back


def test_what_a_run_leaves_incomplete_goes_with_it_and_complete_chunks_stay(store):
    with pytest.raises(RuntimeError), running(store, "new"):
        for name in ("a/new/1/part", "a/new/1.json", "a/new/2/part", "a/new/loose", "b/new/3/part", "a/newer/1/part"):
            store.put(f"staging/{name}", "x")
        raise RuntimeError
    assert names(store) == ["staging/a/new/1.json", "staging/a/new/1/part", "staging/a/newer/1/part"]


def test_what_a_killed_run_left_goes_with_the_next_run_that_holds_the_root(store, put_at):
    leave(store, put_at, *LEFT, "captions/old/00001-0.json", "captions/old/00001-0/all-0/part", beat_ago_s=1)
    with writing(store.root), running(store, "new"):
        assert names(store) == [
            "staging/captions/old/00001-0.json",
            "staging/captions/old/00001-0/all-0/part",
            "staging/new.alive",
        ]


@pytest.mark.parametrize("beat_ago_s", [DEAD_AFTER_S + 60, None])
def test_where_nobody_holds_the_root_a_run_is_dead_when_its_heartbeat_is_old(store, put_at, beat_ago_s):
    leave(store, put_at, *LEFT, beat_ago_s=beat_ago_s, ago_s=DEAD_AFTER_S + 60)
    with running(store, "new"):
        assert names(store) == ["staging/new.alive"]


@pytest.mark.parametrize(
    ("beat_ago_s", "ago_s"),
    [(DEAD_AFTER_S - 60, 7 * 86_400.0), (None, DEAD_AFTER_S - 60)],
    ids=["by its heartbeat", "by its youngest object"],
)
def test_a_living_run_keeps_its_staging_however_old(store, put_at, beat_ago_s, ago_s):
    leave(store, put_at, *LEFT, beat_ago_s=beat_ago_s, ago_s=ago_s)
    with running(store, "new"):
        assert set(names(store)) >= {f"staging/{name}" for name in LEFT}
    assert set(names(store)) >= {f"staging/{name}" for name in LEFT}


def test_another_run_of_this_process_is_alive_whoever_holds_the_root(store, put_at):
    with writing(store.root), running(store, "old"):
        leave(store, put_at, *LEFT, beat_ago_s=10 * DEAD_AFTER_S)
        with running(store, "new"):
            assert set(names(store)) >= {f"staging/{name}" for name in LEFT}
        assert set(names(store)) >= {f"staging/{name}" for name in LEFT}


def test_a_clock_that_was_set_back_neither_kills_a_run_nor_keeps_a_dead_one_for_ever(store, put_at):
    leave(store, put_at, *LEFT, beat_ago_s=-7200)
    with running(store, "new"):
        assert set(names(store)) >= {f"staging/{name}" for name in LEFT}
    (beat,) = [entry for entry in store.list("staging") if entry.name == "staging/old.alive"]
    assert abs(beat.modified_s - time.time()) < 60  # from now on it ages
    put_at("staging/old.alive", DEAD_AFTER_S + 60)
    with running(store, "newer"):
        assert names(store) == ["staging/newer.alive"]


def test_a_root_whose_clock_is_not_ours_judges_by_its_own(store, put_at, monkeypatch):
    leave(store, put_at, *LEFT, beat_ago_s=3600 + 60)
    original = staging._beat

    def slow(files, run):
        original(files, run)
        put_at(f"staging/{run}.alive", 3600)

    monkeypatch.setattr(staging, "_beat", slow)
    with running(store, "new"):
        assert set(names(store)) >= {f"staging/{name}" for name in LEFT}


def test_no_folder_is_left_when_the_last_run_ends(tmp_path):
    store = FolderStore(str(tmp_path))
    with running(store, "new"):
        (tmp_path / "staging" / "captions" / "new" / "00000-0" / "_temporary").mkdir(parents=True)
        with running(store, "newer"):
            pass
        assert (tmp_path / "staging" / "captions" / "new" / "00000-0" / "_temporary").exists()
    assert os.listdir(tmp_path) == []


def test_a_stage_keeps_its_run_alive_and_says_what_fails_it(tmp_path):
    store = FolderStore(str(tmp_path))
    config = SimpleNamespace(root=str(tmp_path))
    seen = []

    @staged
    def stage(session, config, *, run):
        """Do it."""
        seen.append(names(store))
        return run

    assert stage(None, config, run="new") == "new"
    assert stage.__doc__ == "Do it."
    assert seen == [["staging/new.alive"]]
    (tmp_path / "staging").write_text("a file where a folder should be")
    with pytest.raises(FilesError, match=r"new\.alive cannot be written"):
        stage(None, config, run="new")


def test_a_heartbeat_that_fails_once_is_tried_again(store, monkeypatch, caplog):
    monkeypatch.setattr(staging, "BEAT_S", 0.02)
    failed = threading.Event()
    original = type(store).put

    def once(self, name, content):
        if threading.current_thread().name == "heartbeat" and not failed.is_set():
            failed.set()
            raise FilesError("The network is gone.")
        original(self, name, content)

    monkeypatch.setattr(type(store), "put", once)
    with running(store, "new"):
        (first,) = store.list("staging")
        assert failed.wait(10)
        deadline = time.monotonic() + 10
        while store.list("staging")[0].modified_s <= first.modified_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "could not be renewed: The network is gone." in caplog.text
