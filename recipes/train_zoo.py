"""Trains the demo models from scratch: ``python -m recipes.train_zoo --out DIR [--only blip|clip|gpt2]``."""

from __future__ import annotations

import argparse
import importlib
import logging
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

MODELS = ("clip", "blip", "gpt2")  # the longest first, so that two cores finish together


def train_zoo(out: Path, names: tuple[str, ...] = MODELS, workers: int = 2) -> dict[str, float]:
    """Train the named models into ``out/<name>``, a core each.

    Args:
        out: Folder of the model folders; a model's own folder is replaced when its training has finished.
        names: Some of ``MODELS``.
        workers: Models trained at the same time.

    Returns:
        Seconds of training by model.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return dict(zip(names, pool.map(_train_one, names, [out] * len(names)), strict=True))


def _train_one(name: str, out: Path) -> float:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    started = time.monotonic()
    unfinished = out / f".{name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    importlib.import_module(f"recipes.{name}").train(unfinished)
    for path in unfinished.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    shutil.rmtree(out / name, ignore_errors=True)
    unfinished.rename(out / name)
    seconds = time.monotonic() - started
    logger.info("trained %s in %.0f s", name, seconds)
    return seconds


def main() -> None:
    """Parse the command line and train."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one folder per model")
    parser.add_argument("--only", choices=MODELS, help="train this model only")
    arguments = parser.parse_args()
    train_zoo(arguments.out, (arguments.only,) if arguments.only else MODELS)


if __name__ == "__main__":
    main()
