"""What a contender is told and what it answers; imports only pyarrow, since some have environments of their own.

`python -m benchmarks.contenders.NAME job.json` reads a job, computes, writes its outputs as Parquet (`key`, `value`)
and beside them a `.json` with the seconds it took. Start-up (imports, sessions, loading the model, a few contents to
warm up) is apart from the seconds that count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VALUES = {
    "caption": pa.string(),
    "clip_image": pa.list_(pa.float32()),
    "clip_text": pa.list_(pa.float32()),
    "perplexity": pa.float64(),
}
"""Type of `value`: the caption, the L2-normalised vector, or the log-perplexity in nats per token."""


@dataclass(frozen=True)
class Job:
    """What to compute, the same for every contender.

    Attributes:
        extractor: `caption`, `clip_image`, `clip_text` or `perplexity`.
        contents: A Parquet file of `key` and `content` (encoded image bytes, or text).
        warm_up: Another one, with a few other contents.
        model: A folder that transformers or open_clip (`local-dir:`) loads.
        max_batch: Most rows per call of the model.
        max_new_tokens: Longest caption.
        cores: Cores to use.
        scratch: A folder of this contender's own.
        out: Where the outputs go.
    """

    extractor: str
    contents: str
    warm_up: str
    model: str
    max_batch: int
    max_new_tokens: int
    cores: int
    scratch: str
    out: str

    @property
    def reads_images(self) -> bool:
        """Whether contents are pictures."""
        return self.extractor in ("caption", "clip_image")

    @property
    def timings(self) -> Path:
        """Where the seconds are written."""
        return Path(self.out).with_suffix(".json")


Compute = Callable[[str], tuple[list[str], list[Any]]]
"""Computes a Parquet file of contents: keys and, row by row, their values."""


def contend(start: Callable[[Job], Compute]) -> None:
    """Run a contender: start it, warm it up, time it, write down what came out.

    Args:
        start: Loads the model, and returns what computes; its time and the warm-up's are start-up.
    """
    job = read_job()
    began = time.perf_counter()
    compute = start(job)
    compute(job.warm_up)
    ready = time.perf_counter()
    keys, values = compute(job.contents)
    answer(job, keys, values, seconds=time.perf_counter() - ready, startup_s=ready - began)


def read_job() -> Job:
    """Return the job named on the command line."""
    return Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))


def write_job(job: Job, path: Path) -> Path:
    """Write a job for `read_job`."""
    path.write_text(json.dumps(asdict(job), indent=2), encoding="utf-8")
    return path


def answer(job: Job, keys: list[str], values: list[Any], *, seconds: float, startup_s: float, **more: Any) -> None:
    """Write outputs and seconds."""
    pq.write_table(pa.table({"key": keys, "value": pa.array(values, VALUES[job.extractor])}), job.out)
    said = {"rows": len(keys), "seconds": seconds, "startup_s": startup_s, **more}
    job.timings.write_text(json.dumps(said), encoding="utf-8")
