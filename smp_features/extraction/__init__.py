"""Extraction: apply any extractor to any table of contents, on Spark, so that each key is computed once.

The modules, in the order of the work: `plan` what is missing · `chunks` how it is
cut · `chunk_jobs` one chunk as Spark jobs · `worker` and `pipeline` a task in its Python worker · `watchdog` and
`batches` hung inputs and memory · `staging` files until they are published · `in_flight` and `runner` the stage itself
· `retries` forgetting failures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smp_features.extraction.retries import retry
    from smp_features.extraction.runner import extract

__all__ = ["extract", "retry"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: every Python worker imports this package, and needs nothing of the driver's side.
    if name == "extract":
        from smp_features.extraction.runner import extract

        return extract
    if name == "retry":
        from smp_features.extraction.retries import retry

        return retry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
