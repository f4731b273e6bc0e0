"""CLIP vectors by a script as open_clip's README has it: a DataLoader, `encode_image` or `encode_text`, normalise.

Pictures are decoded and preprocessed by as many DataLoader workers as there are cores; texts are tokenised batch by
batch at the model's full context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import open_clip
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.contenders.plain import batches, open_picture, read_contents
from benchmarks.contenders.protocol import Compute, Job, contend


class Pictures(Dataset):
    """Encoded pictures, preprocessed when asked for."""

    def __init__(self, contents: Sequence[bytes], preprocess: Any) -> None:
        self._contents = contents
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self._preprocess(open_picture(self._contents[row]))


def start(job: Job) -> Compute:
    """Load the model."""
    torch.set_num_threads(job.cores)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{job.model}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{job.model}")

    def vectors(contents: Sequence[Any]) -> Iterator[torch.Tensor]:
        if job.reads_images:
            for pixels in DataLoader(Pictures(contents, preprocess), job.max_batch, num_workers=job.cores):
                yield model.encode_image(pixels)
        else:
            for texts in batches(contents, job.max_batch):
                yield model.encode_text(tokenizer(list(texts)))

    def compute(path: str) -> tuple[list[str], list[Any]]:
        keys, contents = read_contents(path)
        values: list[Any] = []
        with torch.no_grad():
            for found in vectors(contents):
                values += list((found / found.norm(dim=-1, keepdim=True)).numpy())
        return keys, values

    return compute


if __name__ == "__main__":
    contend(start)
