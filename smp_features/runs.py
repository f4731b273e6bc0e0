"""What a stage reports: its summary, its row in `runs`, and the lock that keeps a local root to one writer."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from smp_features.errors import RootError, RootLockedError

logger = logging.getLogger(__name__)

Outcome = Literal["done", "nothing_to_do", "failed"]

_held: set[str] = set()


@dataclass(frozen=True)
class Summary:
    """What a stage did, and where things stand after it. The fields are those of the table `runs`.

    Attributes:
        stage: `ingest`, `extract/caption`, `features` …
        outcome: `done`, `nothing_to_do` (no model loaded, no version written) or `failed`.
        wanted: Rows that should exist.
        ok: Rows usable.
        failed: Rows with a permanent error.
        left: Rows still to do.
        given_up: Rows tried as often as allowed.
        computed: Rows computed by this run.
        model_loads: Models loaded in workers.
        seconds: By phase, such as decode, compute, write.
        versions_read: Table to version at the start.
        versions_written: Table to version, of the tables that changed.
        started_at: When this step began (UTC); None: with its stage.
        finished_at: When it ended (UTC); None: with its stage.
        message: One line for people.
        details: Further lines for people; not stored.
    """

    stage: str
    outcome: Outcome = "done"
    wanted: int = 0
    ok: int = 0
    failed: int = 0
    left: int = 0
    given_up: int = 0
    computed: int = 0
    model_loads: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    versions_read: dict[str, int] = field(default_factory=dict)
    versions_written: dict[str, int] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""
    details: tuple[str, ...] = ()

    @property
    def reconciles(self) -> bool:
        """Every row wanted is accounted for."""
        return self.wanted == self.ok + self.failed + self.left + self.given_up


def new_run_id() -> str:
    """Return a run id that sorts by time: `20261123T101500-1a2b3c`."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]


class Phases:
    """Seconds by phase, measured with `with phases("write"):`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 3)


def is_local(root: str) -> bool:
    """Whether a root is a folder of this machine, not an object-store URI."""
    return re.match(r"^[a-z][a-z0-9+.-]*://", root) is None


@contextmanager
def writing(root: str) -> Iterator[None]:
    """Hold the lock of a local root while writing to it; a root on storage with atomic commits needs none.

    The lock belongs to this process and goes with it, however it ends. Nested use in one process is allowed.

    Raises:
        RootLockedError: Another process writes; the message says which and since when.
        RootError: The root cannot be created or written.
    """
    if not is_local(root):
        yield
        return
    folder = Path(root).absolute()
    if str(folder) in _held:
        yield
        return
    path, made = folder / ".lock", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held for the duration of the block
    except OSError as error:
        raise RootError(
            f"The root {root} cannot be written: {error.strerror or type(error).__name__}.",
            "Choose another with --root, or mend its permissions.",
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise RootLockedError(
                f"The root {root} is being written by {_describe(handle.read())}.",
                "Wait for it to end, then run the same command again; reading is always allowed.",
            ) from None
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv[:3])}
        handle.truncate(0)
        handle.write(json.dumps(holder | {"since": datetime.now(UTC).isoformat(timespec="seconds")}))
        handle.flush()
        _held.add(str(folder))
        try:
            yield
        finally:
            _held.discard(str(folder))
            handle.truncate(0)
            if made and [entry.name for entry in folder.iterdir()] == [path.name]:
                # Refused before anything was written: leave nothing behind, not even the folder.
                path.unlink()
                folder.rmdir()


def _describe(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
