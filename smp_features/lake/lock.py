"""May this process write this root? Where tables are folders, one process at a time may; a catalog arbitrates itself.

A folder is locked by the file `.lock` in it, and the folder itself is locked too: who deletes the file by hand lets
nobody in. Where there are no locks, the root is leased: `.lease/<number>` is put if absent, and renewed while held. Who
puts the next number holds the lease from then on, which is allowed when the last one was given back or is too old.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smp_features.errors import FilesError, RootError, RootLockedError
from smp_features.lake.files import Store, open_store
from smp_features.redaction import redacted

logger = logging.getLogger(__name__)

RENEW_S = 20.0
"""Seconds between two renewals of a lease."""

LAPSED_AFTER_S = 180.0
"""A lease that was not renewed for so long is nobody's."""

_LEASES = ".lease"
_held: dict[str, _Hold] = {}

_WAIT = "Wait for it to end, then run the same command again; reading is always allowed."


@contextmanager
def writing(root: str, catalog: str | None = None) -> Iterator[None]:
    """Hold the right to write a root while inside; it goes with this process, however that ends.

    Nested use in one process is allowed.

    Args:
        root: Of the configuration.
        catalog: Where tables are, if not under the root: then nothing is held.

    Raises:
        RootLockedError: Another process writes; the message says which and since when.
        RootError: The root cannot be created or written, or is in a store that cannot keep a lease.
    """
    files = open_store(root)
    if catalog is not None or files.root in _held:
        yield
        return
    hold = _taken(files)
    _held[files.root] = hold
    try:
        yield
    finally:
        del _held[files.root]
        hold.give_back()


def held(root: str) -> bool:
    """Whether this process alone may write a root now; spelt as `Store.root` is."""
    return root in _held


def confirm(root: str) -> None:
    """Make sure, before a table is written, that a root that this process held is still its own.

    Raises:
        RootLockedError: The lock was deleted by hand, or the lease has lapsed or was taken.
    """
    if root in _held:
        _held[root].confirm()


class _Hold(ABC):
    @abstractmethod
    def confirm(self) -> None: ...

    @abstractmethod
    def give_back(self) -> None: ...


def _taken(files: Store) -> _Hold:
    folder = files.local_folder()
    if folder is not None:
        with suppress(_NoLocks):
            return _Lock(folder)
    return _Lease(files)


class _NoLocks(Exception):  # noqa: N818 - a property of the file system
    """The file system has no locks, such as a mounted volume."""


class _Lock(_Hold):
    """The lock of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, not folder.exists()
        self._path = folder / ".lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115 - held until it is given back
        except OSError as error:
            raise RootError(
                f"The root {folder} cannot be written: {error.strerror or type(error).__name__}.",
                "Choose another with --root, or mend its permissions.",
            ) from None
        self._whole = None
        try:
            if not _flock(self._file.fileno()):
                raise _NoLocks
            self._whole = _locked_folder(folder)
        except BlockingIOError:
            self._file.seek(0)
            holder = _described(self._file.read())
            self._file.close()
            raise RootLockedError(f"The root {folder} is being written by {holder}.", _WAIT) from None
        except _NoLocks:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(json.dumps(_holder()))
        self._file.flush()

    def confirm(self) -> None:
        if self._whole is None and not self._is_there():
            raise RootLockedError(
                f"The lock {self._path} was removed or replaced while this process held it, so that another may write.",
                "Nothing more is written. Leave the file alone, and run the same command again.",
            )

    def _is_there(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        return False

    def give_back(self) -> None:
        self._file.truncate(0)
        if self._made and os.listdir(self._folder) == [self._path.name]:
            # Refused before anything was written: leave nothing behind, not even the folder.
            self._path.unlink()
            self._folder.rmdir()
        self._file.close()
        if self._whole is not None:
            os.close(self._whole)


def _flock(file: int) -> bool:
    """Lock a file, or return that its file system has no locks.

    Raises:
        BlockingIOError: Another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _locked_folder(folder: Path) -> int | None:
    """Lock the folder itself and return its handle, or None where folders cannot be locked, as on NFS."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _flock(handle):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise
    os.close(handle)
    return None


class _Lease(_Hold):
    """The lease of a root in a store without locks."""

    def __init__(self, files: Store) -> None:
        self._files = files
        self._said = _holder() | {"token": uuid.uuid4().hex}
        self._stop = threading.Event()
        self._number = self._take()
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renewing, name="lease", daemon=True)
        self._thread.start()

    def _take(self) -> int:
        last, age = self._last()
        if last:
            held = json.loads(self._files.get_text(_name(last)) or "{}")
            if not held.get("given_back") and age <= LAPSED_AFTER_S:
                raise RootLockedError(
                    f"The root {self._files.root} is being written by {_described(json.dumps(held))}.", _WAIT
                )
        mine = _name(last + 1)
        if not self._files.put_if_absent(mine, json.dumps(self._said)):
            raise RootLockedError(f"The root {self._files.root} is being written by another process.", _WAIT)
        if self._files.put_if_absent(mine, json.dumps(self._said)):
            raise RootError(
                f"{self._files.root} puts an object over one that is there when asked to put it only if absent.",
                "Two writers could not be kept apart there; use a catalog, or a store that has conditional writes.",
            )
        for number in range(max(1, last - 1), last + 1):
            self._files.delete(_name(number))
        return last + 1

    def _last(self) -> tuple[int, float]:
        """Return the highest number and the age of its lease, by the clock of the store; none is number 0."""
        probe = f"{_LEASES}/probe-{uuid.uuid4().hex}"
        self._files.put(probe, "")
        times = {entry.name: entry.modified_s for entry in self._files.list(_LEASES)}
        self._files.delete(probe)
        numbers = [int(number) for name in times if (number := name.rpartition("/")[2]).isdecimal()]
        last = max(numbers, default=0)
        # One from the future was put before a clock was set back, and would have been renewed since.
        return last, abs(times[probe] - times[_name(last)]) if last else 0.0

    def confirm(self) -> None:
        if time.monotonic() - self._renewed > LAPSED_AFTER_S / 2 or self._files.exists(_name(self._number + 1)):
            raise RootLockedError(
                f"The lease on {self._files.root} could not be renewed, so that another process may write.",
                "Nothing more is written. Run the same command again.",
            )

    def give_back(self) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(FilesError):  # else it lapses
            self._files.put(_name(self._number), json.dumps(self._said | {"given_back": True}))

    def _renewing(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                self._files.put(_name(self._number), json.dumps(self._said))
                self._renewed = time.monotonic()
            except FilesError as error:
                logger.warning("the lease could not be renewed: %s", error.message)


def _name(number: int) -> str:
    return f"{_LEASES}/{number:09d}"


def _holder() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    command = redacted(" ".join(sys.argv[:3]))
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}


def _described(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
