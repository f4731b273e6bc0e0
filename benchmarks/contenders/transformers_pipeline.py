"""Captions by transformers' pipeline, fed by a generator with `batch_size`, as its documentation shows.

transformers 5 dropped the task "image-to-text"; BLIP's captions now come from "image-text-to-text", which wants a text:
the empty one, since nothing is to stand before the caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import pipeline

from benchmarks.contenders.plain import open_picture, read_contents
from benchmarks.contenders.protocol import Compute, Job, contend


def start(job: Job) -> Compute:
    """Load the pipeline."""
    torch.set_num_threads(job.cores)
    captioner = pipeline("image-text-to-text", model=job.model)

    def compute(path: str) -> tuple[list[str], list[str]]:
        keys, contents = read_contents(path)
        said = captioner(_inputs(contents), batch_size=job.max_batch, max_new_tokens=job.max_new_tokens)
        return keys, [_text(one) for one in said]

    return compute


def _inputs(contents: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for raw in contents:
        yield {"images": open_picture(raw), "text": ""}


def _text(said: Any) -> str:
    return (said[0] if isinstance(said, list) else said)["generated_text"].strip()


if __name__ == "__main__":
    contend(start)
