"""Temporary folders of this machine: gone when their block ends, or, after a kill, when the next one begins."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_kept = ExitStack()
atexit.register(_kept.close)


def scratch_base() -> Path:
    """Return the folder that holds this user's temporary folders."""
    return Path(tempfile.gettempdir()) / f"smp-scratch-{os.getuid()}"


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Give an empty folder to work in, after removing those whose processes are gone.

    A folder belongs to who holds the lock beside it, and a lock goes with its process, however that ends.

    Args:
        purpose: Begins the folder's name, for people.
    """
    base = scratch_base()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_abandoned()
    folder = base / f"{purpose}-{uuid.uuid4().hex[:12]}"
    with _held(folder.with_name(folder.name + _LOCK)) as lock:
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def scratch_until_exit(purpose: str) -> Path:
    """Return such a folder that stays until this process ends."""
    return _kept.enter_context(scratch(purpose))


@contextmanager
def _held(path: Path) -> Iterator[Path]:
    """Make a lock file and hold it; a sweep may take a new one for a dead one before it is held."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            break
        os.close(handle)
    try:
        yield path
    finally:
        os.close(handle)


def remove_abandoned() -> None:
    """Remove the folders whose processes are gone."""
    base = scratch_base()
    for lock in base.glob(f"*{_LOCK}"):
        with suppress(FileNotFoundError), lock.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            logger.info("removing %s, which a killed process left", lock.stem)
            shutil.rmtree(base / lock.name.removesuffix(_LOCK), ignore_errors=True)
            lock.unlink(missing_ok=True)
