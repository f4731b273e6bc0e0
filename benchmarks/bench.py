"""What every benchmark is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bench:
    """Where a benchmark works, and on what.

    Attributes:
        work: A folder for models, contents and lakehouses; kept between runs.
        source: The posts folder that contents are made from.
        quick: Seconds instead of minutes of work, to see that it runs; figures are not kept.
        seed: Of what is left to chance; the figures that depend on it keep it.
    """

    work: Path
    source: Path
    quick: bool
    seed: int

    def minutes(self, wanted: float) -> float:
        """Return how many minutes of work to measure."""
        return 0.15 if self.quick else wanted

    def posts(self, wanted: int) -> int:
        """Return how many posts to measure."""
        return max(200, wanted // 100) if self.quick else wanted
