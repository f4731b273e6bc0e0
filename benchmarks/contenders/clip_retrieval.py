"""clip-retrieval's inference over a folder of files, as its README shows; it writes half-precision vectors.

Files are written at start-up. A run loads the model anew, so start-up is measured by a run of its own and
taken off. It knows models by open_clip's names, so it takes the weights of ViT-B/32 and no other folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from clip_retrieval.clip_inference.main import main as clip_inference

from benchmarks.contenders.plain import contend_less_start, read_contents
from benchmarks.contenders.protocol import Compute, Job

ARCHITECTURE = "ViT-B-32"


def start(job: Job) -> Compute:
    """Lay out the files."""
    torch.set_num_threads(job.cores)
    kind, emb = ("image", "img_emb") if job.reads_images else ("text", "text_emb")
    folders = {path: _lay_out(path, job) for path in (job.contents, str(Path(job.scratch) / "few.parquet"))}

    def compute(path: str) -> tuple[list[str], list[Any]]:
        out = Path(job.scratch) / "embeddings"
        shutil.rmtree(out, ignore_errors=True)
        clip_inference(
            input_dataset=str(folders[path]),
            output_folder=str(out),
            batch_size=job.max_batch,
            num_prepro_workers=job.cores,
            enable_image=kind == "image",
            enable_text=kind == "text",
            clip_model=f"open_clip:{ARCHITECTURE}/{job.model}/open_clip_model.safetensors",
        )
        vectors = np.load(out / emb / f"{emb}_0.npy").astype(np.float32)
        if kind == "image":
            names = pq.read_table(out / "metadata" / "metadata_0.parquet")["image_path"].to_pylist()
            return [Path(name).stem for name in names], list(vectors)
        return sorted(file.stem for file in folders[path].iterdir()), list(vectors)  # its order

    return compute


def _lay_out(path: str, job: Job) -> Path:
    folder = Path(job.scratch) / f"files-{Path(path).stem}"
    folder.mkdir()
    for key, content in zip(*read_contents(path), strict=True):
        if job.reads_images:
            (folder / f"{key}.jpg").write_bytes(content)  # Pillow goes by what is in it
        else:
            (folder / f"{key}.txt").write_text(content, encoding="utf-8")
    return folder


if __name__ == "__main__":
    contend_less_start(start)
