"""A tuned single-process loop over the same library calls: what extraction is held against.

Pictures: a pool decodes ahead, in the order of the file. Texts: all are tokenised first, by this thread, then sorted by
length over the whole file and computed; CLIP's context is cut to the batch's longest text. Torch uses all cores, and
large layers go to oneDNN as in the stage. No Spark, no table, no status, no resume.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps

from benchmarks.contenders.protocol import Compute, Job, contend
from smp_features.extractors.inference import for_inference

CPU = torch.device("cpu")

AHEAD = 4
"""Batches in preparation while one is computed."""

TOKENS = {"clip_text": 24, "perplexity": 32}
"""Tokens of a typical text: a micro-batch holds `max_batch` of them, fewer longer ones, more shorter ones."""


def start(job: Job) -> Compute:
    """Load the model and return the loop over it."""
    torch.set_num_threads(job.cores)
    return {"caption": _captions, "clip_image": _clip_images, "clip_text": _clip_texts, "perplexity": _perplexities}[
        job.extractor
    ](job)


# -- pictures -----------------------------------------------------------------------------------------------------


def _captions(job: Job) -> Compute:
    from transformers import AutoProcessor, BlipForConditionalGeneration

    processor = AutoProcessor.from_pretrained(job.model, backend="torchvision")
    model = for_inference(BlipForConditionalGeneration.from_pretrained(job.model), CPU)

    def prepare(raw: bytes) -> torch.Tensor:
        return processor.image_processor(images=_picture(raw), return_tensors="pt")["pixel_values"][0]

    def run(pixels: Sequence[torch.Tensor]) -> list[str]:
        tokens = model.generate(
            pixel_values=torch.stack(list(pixels)), max_new_tokens=job.max_new_tokens, num_beams=1, do_sample=False
        )
        return [text.strip() for text in processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    return lambda path: _over_pictures(path, job, prepare, run)


def _clip_images(job: Job) -> Compute:
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{job.model}")
    tower = for_inference(model.visual, CPU)

    def run(pixels: Sequence[torch.Tensor]) -> list[np.ndarray]:
        vectors = torch.nn.functional.normalize(tower(torch.stack(list(pixels))), dim=-1)
        return list(vectors.numpy())

    return lambda path: _over_pictures(path, job, lambda raw: preprocess(_picture(raw)), run)


def _picture(raw: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(raw))
    return ImageOps.exif_transpose(picture).convert("RGB")


def _over_pictures(
    path: str, job: Job, prepare: Callable[[bytes], torch.Tensor], run: Callable[[Sequence[torch.Tensor]], list[Any]]
) -> tuple[list[str], list[Any]]:
    keys: list[str] = []
    values: list[Any] = []
    with ThreadPoolExecutor(job.cores) as pool, torch.inference_mode():
        batches = (
            (names, [pool.submit(prepare, raw) for raw in contents]) for names, contents in _read(path, job.max_batch)
        )
        for names, futures in _ahead(batches):
            values += run([future.result() for future in futures])
            keys += names
    return keys, values


def _read(path: str, rows: int) -> Iterator[tuple[list[str], list[Any]]]:
    for batch in pq.ParquetFile(path).iter_batches(rows, columns=["key", "content"]):
        yield batch.column(0).to_pylist(), batch.column(1).to_pylist()


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


# -- texts --------------------------------------------------------------------------------------------------------


def _clip_texts(job: Job) -> Compute:
    import open_clip

    model = for_inference(open_clip.create_model(f"local-dir:{job.model}"), CPU)
    tower = getattr(model, "text", model)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{job.model}")

    def tokenise(texts: list[str]) -> list[np.ndarray]:
        tokens = tokenizer(texts).numpy()
        return [row[: row.argmax() + 1] for row in tokens]

    def run(items: Sequence[np.ndarray]) -> list[np.ndarray]:
        length = len(items[0])
        ids = torch.zeros((len(items), length), dtype=torch.int64)
        for row, item in enumerate(items):
            ids[row, : len(item)] = torch.from_numpy(item)
        ends = torch.tensor([len(item) - 1 for item in items])
        states = tower.token_embedding(ids) + tower.positional_embedding[:length]
        states = tower.transformer(states, attn_mask=tower.attn_mask[:length, :length])
        pooled = tower.ln_final(states)[torch.arange(len(items)), ends] @ tower.text_projection
        return list(torch.nn.functional.normalize(pooled, dim=-1).numpy())

    return lambda path: _over_texts(path, job, tokenise, run)


def _perplexities(job: Job) -> Compute:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model = for_inference(AutoModelForCausalLM.from_pretrained(job.model), CPU)

    def tokenise(texts: list[str]) -> list[np.ndarray]:
        return [
            np.array([tokenizer.bos_token_id, *ids[:256]])
            for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    def run(items: Sequence[np.ndarray]) -> list[float]:
        length = len(items[0])
        ids = torch.full((len(items), length), tokenizer.bos_token_id)
        seen = torch.zeros((len(items), length), dtype=torch.int64)
        for row, item in enumerate(items):
            ids[row, : len(item)] = torch.from_numpy(item)
            seen[row, : len(item)] = 1
        logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
        targets = ids[:, 1:].masked_fill(seen[:, 1:] == 0, -100)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        totals = losses.view_as(targets).sum(dim=1, dtype=torch.float64)
        return (totals / (seen.sum(dim=1) - 1)).tolist()

    return lambda path: _over_texts(path, job, tokenise, run)


def _over_texts(
    path: str,
    job: Job,
    tokenise: Callable[[list[str]], list[np.ndarray]],
    run: Callable[[Sequence[np.ndarray]], list[Any]],
) -> tuple[list[str], list[Any]]:
    keys: list[str] = []
    items: list[np.ndarray] = []
    for names, texts in _read(path, 4096):
        keys += names
        items += tokenise(texts)
    order = sorted(range(len(items)), key=lambda row: -len(items[row]))
    limit = job.max_batch * TOKENS[job.extractor]
    values: list[Any] = [None] * len(items)
    with torch.inference_mode():
        while order:
            rows = max(1, limit // len(items[order[0]]))
            batch, order = order[:rows], order[rows:]
            for row, value in zip(batch, run([items[row] for row in batch]), strict=True):
                values[row] = value
    return keys, values


if __name__ == "__main__":
    contend(start)
