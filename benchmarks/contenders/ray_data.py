"""Ray Data: `map_batches` with a class, an actor per core with one torch thread each, as its guides show.

Every run starts its actors anew, so start-up is measured by a run of its own and taken off.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import ray

from benchmarks.contenders.plain import contend_less_start, load_plain
from benchmarks.contenders.protocol import Compute, Job

BLOCKS_PER_CORE = 8
"""A Parquet file this small would be one block, and one actor's work."""

OBJECT_STORE = 1 << 30


class Model:
    """What an actor holds."""

    def __init__(self, job: Job) -> None:
        self._model = load_plain(job, threads=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"key": batch["key"], "value": self._model(batch["content"].tolist())}


def start(job: Job) -> Compute:
    """Start Ray; one more logical CPU than there are, or reading would wait for the actors for ever."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the user's home
    ray.init(num_cpus=job.cores + 1, include_dashboard=False, object_store_memory=OBJECT_STORE)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def compute(path: str) -> tuple[list[str], list[Any]]:
        rows = ray.data.read_parquet(path).select_columns(["key", "content"])
        rows = rows.repartition(BLOCKS_PER_CORE * job.cores).map_batches(
            Model,
            fn_constructor_args=(job,),
            batch_size=job.max_batch,
            compute=ray.data.ActorPoolStrategy(size=job.cores),
            num_cpus=1,
        )
        found = rows.to_pandas()
        return list(found["key"]), list(found["value"])

    return compute


if __name__ == "__main__":
    contend_less_start(start)
