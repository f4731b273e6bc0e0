"""Perplexity by the loop of Hugging Face `evaluate`'s metric, written anew.

The package loads its metrics as scripts from the hub, and that script asks transformers for names that version 5 lacks.
What it does is kept: all texts are tokenised in one call and padded to the longest of them all, then scored batch by
batch in the order given, the start token before each.
"""

from __future__ import annotations

import torch

from benchmarks.contenders.plain import Perplexities, batches, read_contents, score
from benchmarks.contenders.protocol import Compute, Job, contend


def start(job: Job) -> Compute:
    """Load the model."""
    torch.set_num_threads(job.cores)
    plain = Perplexities(job)

    def compute(path: str) -> tuple[list[str], list[float]]:
        keys, contents = read_contents(path)
        every_id, every_mask = plain.tokenise(contents)
        perplexities: list[float] = []
        with torch.no_grad():
            for ids, mask in zip(batches(every_id, job.max_batch), batches(every_mask, job.max_batch), strict=True):
                perplexities += torch.exp(score(plain.model, plain.start_token, ids, mask)).tolist()
        return keys, torch.tensor(perplexities, dtype=torch.float64).log().tolist()

    return compute


if __name__ == "__main__":
    contend(start)
