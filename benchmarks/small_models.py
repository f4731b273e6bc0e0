"""The same comparison with the demo models, which are so small that the machinery around them is most of the work."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench
from benchmarks.ceiling import race_the_loop, tables
from benchmarks.race import KINDS, demo_models

MINUTES = 1.0


def measure(bench: Bench) -> dict[str, Any]:
    """Time the loop and the stage with the demo models."""
    return race_the_loop(bench, "demo", demo_models(), MINUTES, KINDS)


def section(figures: dict[str, Any]) -> str:
    """Return the section on small models."""
    return (
        "## Small models\n\n"
        "The same with the bundled demo models, on about a minute of work. They compute hundreds of pictures and "
        "thousands of titles a second, so what Spark, statuses and Delta cost a row shows; there is no goal for it.\n\n"
        + tables(figures)
    )
