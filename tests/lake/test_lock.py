"""One process at a time writes a root whose tables are folders; readers are free; the right goes with its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from smp_features.errors import FilesError, RootError, RootLockedError
from smp_features.lake import lock
from smp_features.lake.files import AddressStore, FolderStore, open_store
from smp_features.lake.lock import confirm, held, writing

HOLD = """
import sys, time
from smp_features.lake.lock import writing
with writing(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_writes(holder, tmp_path):
    with (
        pytest.raises(RootLockedError, match=f"written by process {holder.pid} on .* since 20") as caught,
        writing(str(tmp_path)),
    ):
        pass
    assert caught.value.exit_status == 1


def test_the_lock_goes_with_a_killed_holder(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with writing(str(tmp_path)):
        assert (tmp_path / ".lock").exists()


def test_one_process_may_nest_the_lock(tmp_path):
    with writing(str(tmp_path)), writing(str(tmp_path)):
        pass
    with writing(str(tmp_path)):
        pass


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RootError, match="cannot be written"), writing(str(tmp_path / "file")):
        pass


def test_a_root_is_held_only_while_inside(tmp_path):
    root = open_store(str(tmp_path)).root
    assert not held(root)
    with writing(str(tmp_path)):
        assert held(root)
        confirm(root)
    assert not held(root)
    confirm(root)  # who holds nothing has lost nothing


def test_a_catalog_arbitrates_itself(holder, tmp_path):
    with writing(str(tmp_path), "main"):
        assert not held(open_store(str(tmp_path)).root)


def test_a_lock_deleted_by_hand_lets_no_second_writer_in(holder, tmp_path):
    (tmp_path / ".lock").unlink()
    with pytest.raises(RootLockedError, match="is being written by another process"), writing(str(tmp_path)):
        pass
    with pytest.raises(RootLockedError), writing(str(tmp_path)):
        pass


def test_where_a_folder_cannot_be_locked_the_holder_of_a_deleted_lock_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_locked_folder", lambda folder: None)  # as on NFS
    root = open_store(str(tmp_path)).root
    with writing(root):
        confirm(root)
        (tmp_path / ".lock").unlink()
        with pytest.raises(RootLockedError, match="was removed or replaced"):
            confirm(root)
        (tmp_path / ".lock").write_text("")
        with pytest.raises(RootLockedError, match="was removed or replaced"):
            confirm(root)


def test_a_root_refused_before_anything_was_written_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="refused"), writing(str(tmp_path / "new" / "lake")):
        raise ValueError("refused")
    assert not (tmp_path / "new" / "lake").exists()


@pytest.fixture(params=["memory", "volume"])
def leased(request, tmp_path, monkeypatch) -> str:
    """A root in a store without locks."""
    if request.param == "memory":
        return f"memory://lake-{uuid.uuid4().hex}"

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    return str(tmp_path / "lake")


def leases(root: str) -> list[str]:
    return [entry.name for entry in open_store(root).list(".lease")]


def as_another_process(monkeypatch):
    monkeypatch.setattr(lock, "_held", {})


def test_a_leased_root_has_one_writer_and_says_who(leased, monkeypatch):
    with writing(leased), writing(leased), monkeypatch.context() as patched:
        as_another_process(patched)
        with pytest.raises(RootLockedError, match=f"written by process {os.getpid()} on .* since 20"), writing(leased):
            pass
    with writing(leased):
        assert leases(leased) == [".lease/000000002"]  # the former, which was given back, is removed
    assert not held(open_store(leased).root)


def test_a_lease_that_lapsed_is_taken_and_its_holder_writes_no_more(leased, monkeypatch):
    first = lock._Lease(open_store(leased))
    with pytest.raises(RootLockedError):
        lock._Lease(open_store(leased))
    first.confirm()
    with monkeypatch.context() as patched:
        patched.setattr(lock, "LAPSED_AFTER_S", 0.0)
        time.sleep(0.05)
        second = lock._Lease(open_store(leased))
    second.confirm()
    with pytest.raises(RootLockedError, match="could not be renewed"):
        first.confirm()
    first.give_back()
    second.confirm()
    second.give_back()


def test_of_two_who_find_a_lapsed_lease_one_gets_it(leased, monkeypatch):
    store = open_store(leased)
    store.put(".lease/000000001", json.dumps({"given_back": True}))
    # Another took it between the look and the put.
    monkeypatch.setattr(lock._Lease, "_last", lambda self: store.put(".lease/000000002", "{}") or (1, 1e9))
    with pytest.raises(RootLockedError, match="by another process"), writing(leased):
        pass


def test_a_holder_that_cannot_renew_its_lease_writes_no_more(leased, monkeypatch):
    root = open_store(leased).root
    with writing(leased):
        confirm(root)
        monkeypatch.setattr(lock._held[root], "_renewed", time.monotonic() - lock.LAPSED_AFTER_S)
        with pytest.raises(RootLockedError, match="could not be renewed"):
            confirm(root)


def test_a_lease_is_renewed_while_it_is_held(leased, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.02)
    with writing(leased):
        (first,) = open_store(leased).list(".lease")
        deadline = time.monotonic() + 10
        while open_store(leased).list(".lease")[0].modified_s <= first.modified_s:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_store_that_puts_over_what_is_there_is_refused(leased, monkeypatch):
    for kind in (AddressStore, FolderStore):
        monkeypatch.setattr(kind, "put_if_absent", lambda self, name, content: self.put(name, content) or True)
    with pytest.raises(RootError, match="puts an object over one that is there"), writing(leased):
        pass


def test_a_root_that_cannot_be_reached_is_an_error(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(AddressStore, "_open", refuse)
    with pytest.raises(FilesError, match="Permission denied"), writing("memory://lake"):
        pass
