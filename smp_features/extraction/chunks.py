"""How the keys left are cut into chunks: ranges of keys, sized from the measured speed to minutes of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

TASK_SECONDS = 30.0
"""Work in a task once the speed is known: the small jobs that take stock and publish, which wait for a slot like any
other, wait half as long."""

LAST_SECONDS = 30.0
"""Work in the last chunk, by all slots together. Nothing comes after it that could fill a slot which ends early or
hide its publishing, so it is small, and cut into smaller tasks."""

LAST_TASK_SECONDS = 10.0
"""Work in a task of the last chunk."""


@dataclass(frozen=True)
class Chunk:
    """A range of keys that is computed and published as one.

    Attributes:
        number: In order of cutting, from 0.
        low: First leading digits, inclusive; empty for the beginning.
        high: First leading digits that are not in it; null for the end.
        rows: Keys left in the range.
        shards: Shards that those keys lie in.
        tasks: Tasks to spread it over.
    """

    number: int
    low: str
    high: str | None
    rows: int
    shards: tuple[str, ...]
    tasks: int = 1

    @property
    def name(self) -> str:
        """Its folder in staging."""
        return f"{self.number:05d}-{self.low or '0'}"


class Cutter:
    """Cuts the keys left into chunks, one after the other.

    Args:
        left: Leading digits of keys to how many are left.
        first_rows: Rows of a chunk, per slot, while no speed is known.
        minutes: Work in a chunk once it is.
        slots: Tasks at a time.
    """

    def __init__(self, left: Mapping[str, int], first_rows: int, minutes: float, slots: int = 1) -> None:
        self._left = sorted(left.items())
        self._first_rows = first_rows * slots
        self._minutes = minutes
        self._slots = slots
        self._at = 0
        self._number = 0

    def cut(self, rows_per_second: float | None) -> Chunk | None:
        """Return the next chunk, or None when nothing is left.

        Args:
            rows_per_second: Of all slots together, measured so far; None before the first chunk came back.
        """
        if self._at == len(self._left):
            return None
        left = sum(count for _, count in self._left[self._at :])
        size = self._size(left, rows_per_second)
        start, rows = self._at, 0
        while self._at < len(self._left) and rows < size:
            rows += self._left[self._at][1]
            self._at += 1
        prefixes = [prefix for prefix, _ in self._left[start : self._at]]
        chunk = Chunk(
            number=self._number,
            low=prefixes[0] if start else "",
            high=self._left[self._at][0] if self._at < len(self._left) else None,
            rows=rows,
            shards=tuple(sorted({prefix[0] for prefix in prefixes})),
            tasks=self._tasks(rows, rows_per_second),
        )
        self._number += 1
        return chunk

    def _size(self, left: int, rows_per_second: float | None) -> int:
        """Return the rows of the next chunk; a small remainder is not worth a job, a stage and a publish of its own."""
        if rows_per_second is None:
            return left if left <= 1.5 * self._first_rows else self._first_rows
        size = max(1, int(rows_per_second * self._minutes * 60))
        last = int(rows_per_second * min(LAST_SECONDS, self._minutes * 60 / 5))
        if left <= max(2 * last, 1):
            return left
        return left - last if left <= 1.5 * size else size

    def _tasks(self, rows: int, rows_per_second: float | None) -> int:
        in_task = LAST_TASK_SECONDS if self._at == len(self._left) else TASK_SECONDS
        of_slot = 1 if rows_per_second is None else ceil(rows / rows_per_second / in_task)
        return min(rows, self._slots * max(1, of_slot))
