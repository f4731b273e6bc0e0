"""How prepared inputs become micro-batches: by cost, dearest first, and fewer rows after running out of memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

GROW_AFTER = 8
"""Full micro-batches that must succeed before the row limit doubles again."""


CALL_SHARE = 1 / 16
"""What one more call of the model costs, as a share of a full micro-batch."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One input, decoded or tokenised.

    Attributes:
        key: Its content key.
        item: What the model's `prepare` returned.
        cost: In the unit of the extractor's `max_cost`; positive.
    """

    key: str
    item: Any
    cost: float


def fill(
    rows: Sequence[Prepared], max_cost: float, *, last: bool = False
) -> tuple[list[list[Prepared]], list[Prepared]]:
    """Divide rows into micro-batches that cost at most `max_cost` each: the row count times the dearest row.

    Rows are put in order of their cost and divided where it costs least in all: what rows are padded to, and
    `CALL_SHARE` for each call. The cheapest rows wait for others, unless they fill a micro-batch.

    Args:
        rows: In any order.
        max_cost: A single row that costs more makes a micro-batch of its own.
        last: No others will come.

    Returns:
        The micro-batches, dearest first, and the rows that others may still join: none of them if these were the last.
    """
    ordered = sorted(rows, key=lambda row: (-row.cost, row.key))
    costs = np.array([row.cost for row in ordered])
    cuts = _cuts(costs, max_cost)
    batches = [ordered[start:end] for start, end in itertools.pairwise(cuts)]
    if last or not batches or len(batches[-1]) == _room(batches[-1][0].cost, max_cost):
        return batches, []
    return batches[:-1], batches[-1]


def _room(cost: float, max_cost: float) -> int:
    return max(1, int(max_cost / cost))


def _cuts(costs: np.ndarray, max_cost: float) -> list[int]:
    """Return where to divide rows so that padding and calls cost least; shortest paths over the places to cut at.

    Args:
        costs: Of the rows, falling.
        max_cost: As for `fill`.

    Returns:
        Rising positions, the first 0 and the last the number of rows.
    """
    least = np.full(len(costs) + 1, np.inf)
    least[0] = 0.0
    before = np.zeros(len(costs) + 1, dtype=np.int64)
    for start, cost in enumerate(costs):
        ends = np.arange(start + 1, min(len(costs), start + _room(cost, max_cost)) + 1)
        reached = least[start] + (ends - start) * cost + max_cost * CALL_SHARE
        shorter = ends[reached <= least[ends]]  # of equals the latest, so that dearer batches are the full ones
        least[shorter] = reached[shorter - start - 1]
        before[shorter] = start
    cuts = [len(costs)]
    while cuts[-1] > 0:
        cuts.append(int(before[cuts[-1]]))
    return cuts[::-1]


class RowLimit:
    """The most rows of a micro-batch; halved by running out of memory, doubled after a while without."""

    def __init__(self) -> None:
        self.rows: int | None = None
        self._successes = 0

    def shrink(self, failed_rows: int) -> None:
        """Note that this many rows did not fit."""
        self.rows = max(1, failed_rows // 2)
        self._successes = 0

    def succeed(self, rows: int) -> None:
        """Note that this many rows did fit."""
        if self.rows is None or rows < self.rows:
            return
        self._successes += 1
        if self._successes >= GROW_AFTER:
            self.rows *= 2
            self._successes = 0

    def cut(self, batch: Sequence[Prepared]) -> list[Sequence[Prepared]]:
        """Divide a micro-batch into pieces within the limit, in order."""
        if self.rows is None or len(batch) <= self.rows:
            return [batch]
        return [batch[start : start + self.rows] for start in range(0, len(batch), self.rows)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or the host, and nothing else."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    said = ("out of memory", "can't allocate memory", "status_alloc_failed")
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in said)


def is_device_failure(error: BaseException) -> bool:
    """Whether an error leaves the GPU unusable for this process, whatever it is given next."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")
    )
