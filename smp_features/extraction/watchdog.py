"""What a worker has in flight, noted where its successor finds it, and the watch that ends a worker stuck over it.

Notes are written before each piece of work, so they also tell what a worker held that crashed or was killed. They are
plain appends of fixed-size records to a file on a disk that survives the process. The driver, where it sees that disk,
reads from them how far a job is, and which models were loaded by attempts whose own count was lost with them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import os
import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smp_features.errors import StageError
from smp_features.extraction import statuses
from smp_features.extraction.guard import Guard

logger = logging.getLogger(__name__)

EXIT_OVERDUE = 75
"""Exit status of a worker ended by its watch."""

GUARD_LATER_S = 2.0
"""Seconds by which the guard outside a worker leaves the first word to the C watchdog inside it."""

KEY_DIGITS = 16
"""Leading digits of a content key in a note; a chance collision only makes a neighbour run alone once."""

RECORD_BYTES = KEY_DIGITS + 2

_BEGAN, _ENDED, _OVERDUE, _LOADED = b"+", b"-", b"!", b"L"
_TRACE = b"T"
"""What `faulthandler` writes into the notes before it ends a process begins with "Timeout"."""


@dataclass
class Found:
    """What the notes of dead workers say.

    Attributes:
        status: Leading key digits to `timeout` or `worker_lost`.
    """

    status: dict[str, str] = field(default_factory=dict)

    def of(self, key: str) -> str | None:
        """Return what a content key is suspected of, or None."""
        return self.status.get(key[:KEY_DIGITS])


class Notes:
    """The notes of one attempt at one task.

    Attributes:
        attempt: Spark's number of the attempt.
        file: The file they are appended to, a descriptor.

    Args:
        folder: Of this job's notes.
        partition: The task.
        attempt: Spark's number of the attempt, unique in the session.
        keep: Leave them to the driver, who sees the folder and removes it; else they end with the attempt.
    """

    def __init__(self, folder: str, partition: int, attempt: int, *, keep: bool = False) -> None:
        self.attempt = attempt
        self._keep = keep
        self._path = Path(folder) / f"{partition}-{attempt}"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
        # Held while this process lives, however it ends: a twin that Spark started on speculation is no successor.
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def began(self, keys: Iterable[str]) -> None:
        """Note that work on these keys begins."""
        self._write(_BEGAN, keys)

    def ended(self, keys: Iterable[str]) -> None:
        """Note that it ended, well or not."""
        self._write(_ENDED, keys)

    def overdue(self, keys: Iterable[str]) -> None:
        """Note which keys the worker is being ended for."""
        self._write(_OVERDUE, keys)

    def loaded(self) -> None:
        """Note that a model was loaded."""
        self._write(_LOADED, ["0" * KEY_DIGITS])

    def close(self) -> None:
        """End the notes: nothing is in flight any more."""
        os.close(self.file)
        if not self._keep:
            self._path.unlink(missing_ok=True)

    def _write(self, sign: bytes, keys: Iterable[str]) -> None:
        # One write per call: appends of this size are not torn, so threads need no lock.
        records = b"".join(sign + key[:KEY_DIGITS].encode().ljust(KEY_DIGITS) + b"\n" for key in keys)
        try:
            os.write(self.file, records)
        except OSError as failure:  # the machine's failure, not one of the inputs in flight
            raise StageError(
                f"A worker could not note what it works on ({failure.strerror}).",
                f"Make room on the disk that holds {self._path.parent}.",
            ) from failure


def left_behind(folder: str, partition: int, earlier: Sequence[str] = ()) -> Found:
    """Read what dead workers had in flight.

    Args:
        folder: Notes of this job, of which earlier attempts at the same task count.
        partition: The task.
        earlier: Folders of failed jobs over the same inputs, of which all notes count.
    """
    found = Found()
    paths = sorted(Path(folder).glob(f"{partition}-*"))
    for job in earlier:
        paths += sorted(Path(job).glob("*-*"))
    for path in paths:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as notes:  # a twin may end well just now
            if not _is_held(notes.fileno()):
                _read(notes.read(), found)
    return found


def loads_beside(folder: str, counted: Container[int]) -> int:
    """Return the models loaded by attempts whose own count the driver does not have: killed, or no longer wanted.

    Args:
        folder: Of the notes of a chunk, one folder per job in it.
        counted: The attempts whose count it has.
    """
    loads = 0
    for path in Path(folder).glob("*/*-*"):
        if int(path.name.rpartition("-")[2]) not in counted:
            loads += sum(sign == _LOADED for sign, _ in _records(path.read_bytes()))
    return loads


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(notes: bytes, found: Found) -> None:
    in_flight: dict[str, int] = {}
    overdue: list[str] = []
    fate = statuses.WORKER_LOST
    for sign, key in _records(notes):
        if sign == _BEGAN:
            in_flight[key] = in_flight.get(key, 0) + 1
        elif sign == _ENDED:
            in_flight[key] = in_flight.get(key, 0) - 1
        elif sign == _OVERDUE:
            overdue.append(key)
        else:
            fate = statuses.TIMEOUT if sign == _TRACE else fate
    if overdue:
        # Whatever else was in flight is innocent: the worker was ended on purpose.
        found.status.update(dict.fromkeys(overdue, statuses.TIMEOUT))
    else:
        held = [key for key, count in in_flight.items() if count > 0]
        found.status.update(dict.fromkeys(held, fate))


def _records(notes: bytes) -> Iterator[tuple[bytes, str]]:
    """Return sign and leading key digits of each whole record; a trace, which comes last, as one without a key."""
    for start in range(0, len(notes) - RECORD_BYTES + 1, RECORD_BYTES):
        sign, key = notes[start : start + 1], notes[start + 1 : start + RECORD_BYTES - 1]
        if sign == _TRACE:
            yield sign, ""
            return
        yield sign, key.decode().strip()


class Watch:
    """Ends this process when a piece of work outlives its deadline, after noting over what.

    Python threads stop when some code holds the interpreter's lock for ever, so the interpreter's own C watchdog is
    wound up at every tick, to twice the deadline: it needs no lock. It cannot tell over what it ends the process, so
    its trace among the notes makes suspects of all that was in flight. A process that is stopped stops both with it:
    a guard beside it, which ends it a little later than the C watchdog would have, makes suspects in the same way.

    Args:
        notes: Where work in flight is noted.
        deadline_s: Seconds that one piece of work may take.
    """

    def __init__(self, notes: Notes, deadline_s: float) -> None:
        self.attempt = notes.attempt
        self._notes = notes
        self._deadline = deadline_s
        self._interval = min(1.0, deadline_s / 4)
        self._limit = 2 * (deadline_s + self._interval)
        self._started: dict[int, tuple[float, Sequence[str]]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._guard = Guard(self._limit + GUARD_LATER_S)
        self._wind_up()  # work may take hold of the lock before the first tick
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._guard.close()
        self._notes.close()

    @contextlib.contextmanager
    def over(self, keys: Sequence[str]) -> Iterator[None]:
        """Watch one piece of work over these keys."""
        token = threading.get_ident()
        self._notes.began(keys)
        with self._lock:
            self._started[token] = (time.monotonic(), keys)
        try:
            yield
        finally:
            with self._lock:
                del self._started[token]
            self._notes.ended(keys)

    def lost(self, keys: Sequence[str]) -> None:
        """Note that this process is about to end over these keys."""
        self._notes.began(keys)

    def loaded(self) -> None:
        """Note that a model was loaded."""
        self._notes.loaded()

    def _tick(self) -> None:
        while not self._closed.wait(self._interval):
            self._wind_up()
            self._check()

    def _wind_up(self) -> None:
        faulthandler.dump_traceback_later(self._limit, exit=True, file=self._notes.file)
        self._guard.alive()

    def _check(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [keys for began, keys in self._started.values() if now - began > self._deadline]
        if late:
            overdue = [key for keys in late for key in keys]
            logger.error("ending this worker: %d inputs outlived %.0f s", len(overdue), self._deadline)
            self._notes.overdue(overdue)
            os._exit(EXIT_OVERDUE)
