"""What a stage reports: its summary, which is its row in `runs`, and the seconds of its phases."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Outcome = Literal["done", "nothing_to_do", "failed"]


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
