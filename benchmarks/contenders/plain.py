"""The models used the plain way, as their model cards and READMEs show; what contenders with workers of their own run.

A batch is taken as it comes: pictures are decoded and texts tokenised in the call, texts padded to the batch's longest
(CLIP's to its full context). Each class loads in its constructor, which is how these tools want a model.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.contenders.protocol import Compute, Job, answer, read_job

LONGEST_TEXT = 256
"""Tokens of a text that count towards its perplexity."""


def load_plain(job: Job, threads: int) -> Callable[[Sequence[Any]], Any]:
    """Load the job's model in this process and return what computes a batch: strings, floats, or rows of an array."""
    torch.set_num_threads(threads)
    kinds = {"caption": Captions, "clip_image": ClipImages, "clip_text": ClipTexts, "perplexity": Perplexities}
    return kinds[job.extractor](job)


class Captions:
    """BLIP as on its model card: processor, `generate`, decode."""

    def __init__(self, job: Job) -> None:
        from transformers import AutoProcessor, BlipForConditionalGeneration

        self._processor = AutoProcessor.from_pretrained(job.model)
        self._model = BlipForConditionalGeneration.from_pretrained(job.model).eval()
        self._max_new_tokens = job.max_new_tokens

    @torch.inference_mode()
    def __call__(self, contents: Sequence[bytes]) -> list[str]:
        inputs = self._processor(images=[open_picture(raw) for raw in contents], return_tensors="pt")
        tokens = self._model.generate(**inputs, max_new_tokens=self._max_new_tokens)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


class ClipImages:
    """open_clip's `preprocess` and `encode_image`."""

    def __init__(self, job: Job) -> None:
        import open_clip

        self._model, _, self._preprocess = open_clip.create_model_and_transforms(f"local-dir:{job.model}")
        self._model.eval()

    @torch.inference_mode()
    def __call__(self, contents: Sequence[bytes]) -> Any:
        pixels = torch.stack([self._preprocess(open_picture(raw)) for raw in contents])
        return self._model.encode_image(pixels, normalize=True).numpy()


class ClipTexts:
    """open_clip's tokenizer and `encode_text`."""

    def __init__(self, job: Job) -> None:
        import open_clip

        self._model = open_clip.create_model(f"local-dir:{job.model}").eval()
        self._tokenizer = open_clip.get_tokenizer(f"local-dir:{job.model}")

    @torch.inference_mode()
    def __call__(self, contents: Sequence[str]) -> Any:
        return self._model.encode_text(self._tokenizer(list(contents)), normalize=True).numpy()


class Perplexities:
    """A causal model's loss per text, the start token put before it and not scored."""

    def __init__(self, job: Job) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(job.model).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(job.model)
        self._tokenizer.pad_token = self._tokenizer.eos_token
        self.start_token = self._tokenizer.bos_token_id

    @torch.inference_mode()
    def __call__(self, contents: Sequence[str]) -> list[float]:
        return score(self.model, self.start_token, *self.tokenise(contents)).tolist()

    def tokenise(self, contents: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, padded to the longest of these texts."""
        encoded = self._tokenizer(
            list(contents),
            add_special_tokens=False,
            padding=True,
            truncation=True,
            max_length=LONGEST_TEXT,
            return_tensors="pt",
        )
        return encoded["input_ids"], encoded["attention_mask"]


def score(model: Any, start_token: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean loss per token of a padded batch, shape (n,)."""
    starts = torch.full((len(ids), 1), start_token)
    ids = torch.cat([starts, ids], dim=1)
    logits = model(ids, attention_mask=torch.cat([torch.ones_like(starts), mask], dim=1)).logits
    losses = torch.nn.CrossEntropyLoss(reduction="none")(logits[:, :-1].transpose(1, 2), ids[:, 1:])
    return (losses * mask).sum(dim=1) / mask.sum(dim=1)


def open_picture(raw: bytes) -> Image.Image:
    """Open encoded bytes as Pillow's users do."""
    return Image.open(io.BytesIO(raw)).convert("RGB")


def read_contents(path: str) -> tuple[list[str], list[Any]]:
    """Return keys and contents of a Parquet file."""
    table = pq.read_table(path, columns=["key", "content"])
    return table["key"].to_pylist(), table["content"].to_pylist()


def batches(contents: Sequence[Any], rows: int) -> list[Sequence[Any]]:
    """Cut contents, in the order given, into batches."""
    return [contents[first : first + rows] for first in range(0, len(contents), rows)]


def contend_less_start(start: Callable[[Job], Compute]) -> None:
    """Run a contender that loads its model anew with every run, and take its start-up off the seconds that count.

    Start-up is a run over as few contents as there are cores, after one that filled the caches; those few contents are
    taken off too, which is in the contender's favour.
    """
    job = read_job()
    few = Path(job.scratch) / "few.parquet"
    pq.write_table(pq.read_table(job.warm_up).slice(0, job.cores), few)
    began = time.perf_counter()
    compute = start(job)
    compute(str(few))
    filled = time.perf_counter()
    compute(str(few))
    ready = time.perf_counter()
    keys, values = compute(job.contents)
    whole = time.perf_counter() - ready
    answer(job, keys, values, seconds=whole - (ready - filled), startup_s=ready - began, with_start_s=whole)
