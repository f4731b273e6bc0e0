"""Staging belongs to runs. A run that is alive renews its heartbeat; what dead runs left is swept by the next run.

    staging/<run>.alive                 the heartbeat
    staging/<area>/<run>/<chunk>/…      files of a run; an area is an extractor or a stage
    staging/<area>/<run>/<chunk>.json   the marker, put last: the chunk is complete and waits to be published

Complete chunks stay whoever made them, since they are published by the next run. Everything else of a dead run goes.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from smp_features.errors import FilesError
from smp_features.lake.files import MARKER, Entry, Store, open_store
from smp_features.lake.lock import held
from smp_features.scratch import remove_abandoned

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

STAGING = "staging"
ALIVE = ".alive"

BEAT_S = 30.0
"""Seconds between two renewals of a heartbeat."""

DEAD_AFTER_S = 900.0
"""A run whose heartbeat is older than this is dead: thirty renewals in a row did not come."""

SKEW_S = 5.0
"""A heartbeat may be this much younger than the one put just now, where many machines keep a store's time."""


@dataclass
class _Run:
    """A run of this process.

    Attributes:
        users: Blocks that are inside it; stages of one run nest.
        stop: Ends its heartbeat.
    """

    users: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


_runs: dict[tuple[str, str], _Run] = {}
_guard = threading.RLock()


@contextmanager
def running(files: Store, run: str) -> Iterator[None]:
    """Sweep what dead runs left in staging and in this machine's temporary folder; keep this run's own while inside.

    What the run leaves incomplete goes when its outermost block ends, and so do the folders that hold nothing.

    Args:
        files: Of the root.
        run: The run's id.

    Raises:
        FilesError: Nothing can be put under the root.
    """
    key = (files.root, run)
    with _guard:
        own = _runs.setdefault(key, _Run())
        own.users += 1
        begins = own.users == 1
    try:
        if begins:
            _beat(files, run)
            threading.Thread(target=_beating, args=(files, run, own.stop), name="heartbeat", daemon=True).start()
            sweep(files, run)
            remove_abandoned()
        yield
    finally:
        with _guard:
            own.users -= 1
            ends = not own.users
            if ends:
                own.stop.set()
        if ends:
            _end(files, run)
            with _guard:
                if not own.users:
                    _runs.pop(key, None)


def staged(stage: Callable[P, R]) -> Callable[P, R]:
    """Run a stage, a function of session, configuration and `run`, within `running`."""

    @functools.wraps(stage)
    def within(*args: P.args, **options: P.kwargs) -> R:
        config: Any = args[1]
        with running(open_store(config.root), str(options["run"])):
            return stage(*args, **options)

    return within


def sweep(files: Store, run: str) -> int:
    """Remove from staging what dead runs did not complete.

    Where this process holds the root's lock, every run but its own is dead. Elsewhere a run is dead when its heartbeat
    (or, for want of one, its youngest object) is older than `DEAD_AFTER_S`, measured against the heartbeat of `run`,
    which the same store timed just now. One from the future was put before a clock was set back: it is put anew, so
    that its age counts from now on.

    Args:
        files: Of the root.
        run: A run whose heartbeat was put just now.

    Returns:
        Runs removed.
    """
    entries = files.list(STAGING)
    last = _signs_of_life(entries)
    now = last.get(run, time.time())
    dead = []
    for other, sign in last.items():
        if (files.root, other) in _runs:
            continue
        if not held(files.root):
            if sign > now + SKEW_S:
                _beat(files, other)
                continue
            if now - sign <= DEAD_AFTER_S:
                continue
        dead.append(other)
    for other in dead:
        if _clear(files, entries, other):
            logger.info("removed unfinished staging of run %s", other)
        files.delete(_heartbeat(other))
    return len(dead)


def _signs_of_life(entries: list[Entry]) -> dict[str, float]:
    """Return when each run was last known to live: its heartbeat's time, else that of its youngest object."""
    objects: dict[str, float] = defaultdict(float)
    beats: dict[str, float] = {}
    for entry in entries:
        parts = entry.name.split("/")
        if len(parts) == 2 and parts[1].endswith(ALIVE):
            beats[parts[1].removesuffix(ALIVE)] = entry.modified_s
        elif len(parts) > 3:
            objects[parts[2]] = max(objects[parts[2]], entry.modified_s)
    return objects | beats


def _clear(files: Store, entries: list[Entry], run: str) -> bool:
    """Remove all of a run but its complete chunks and their markers; return whether there was anything to remove."""
    within: dict[str, set[str]] = defaultdict(set)  # an area's folder of the run, and what lies right in it
    single = set()
    for entry in entries:
        parts = entry.name.split("/")
        if len(parts) > 3 and parts[2] == run:
            within["/".join(parts[:3])].add(parts[3])
            if len(parts) == 4:
                single.add(entry.name)
    removed = False
    for folder, names in within.items():
        complete = {name.removesuffix(MARKER) for name in names if name.endswith(MARKER)}
        unfinished = sorted(name for name in names if name not in complete and not name.endswith(MARKER))
        removed = removed or bool(unfinished)
        if len(unfinished) == len(names):
            files.delete_prefix(folder)
            continue
        for name in unfinished:
            path = f"{folder}/{name}"
            if path in single:
                files.delete(path)
            else:
                files.delete_prefix(path)
    return removed


def _end(files: Store, run: str) -> None:
    try:
        entries = files.list(STAGING)
        _clear(files, entries, run)
        files.delete(_heartbeat(run))
        beating = any(entry.name.endswith(ALIVE) and entry.name != _heartbeat(run) for entry in entries)
        with _guard:
            if not beating and not any(root == files.root and name != run for root, name in _runs):
                files.prune(STAGING)
    except FilesError as error:  # the stage itself is done, or says why not
        logger.warning("staging of run %s could not be removed: %s", run, error.message)


def _heartbeat(run: str) -> str:
    return f"{STAGING}/{run}{ALIVE}"


def _beat(files: Store, run: str) -> None:
    said = {"pid": os.getpid(), "host": socket.gethostname(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    files.put(_heartbeat(run), json.dumps(said))


def _beating(files: Store, run: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        try:
            with _guard:
                if not stop.is_set():
                    _beat(files, run)
        except FilesError as error:
            logger.warning("the heartbeat of run %s could not be renewed: %s", run, error.message)
