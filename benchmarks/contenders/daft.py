"""Daft: a class UDF (`daft.cls`) with a batch method, a process per core with one torch thread each.

Every run starts its processes anew, so start-up is measured by a run of its own and taken off.
"""

from __future__ import annotations

from typing import Any

import daft
from daft import DataType

from benchmarks.contenders.plain import contend_less_start, load_plain
from benchmarks.contenders.protocol import Compute, Job


def start(job: Job) -> Compute:
    """Declare the class; Daft makes its instances when a query runs."""
    dtype = {
        "caption": DataType.string(),
        "perplexity": DataType.float64(),
        "clip_image": DataType.list(DataType.float32()),
        "clip_text": DataType.list(DataType.float32()),
    }[job.extractor]

    @daft.cls(max_concurrency=job.cores, use_process=True)
    class Model:
        def __init__(self, job: Job) -> None:
            self._model = load_plain(job, threads=1)

        @daft.method.batch(return_dtype=dtype, batch_size=job.max_batch)
        def predict(self, contents: Any) -> Any:
            return list(self._model(contents.to_pylist()))

    model = Model(job)

    def compute(path: str) -> tuple[list[str], list[Any]]:
        rows = daft.read_parquet(path)
        found = rows.select(rows["key"], model.predict(rows["content"]).alias("value")).to_pydict()
        return found["key"], found["value"]

    return compute


if __name__ == "__main__":
    contend_less_start(start)
