"""Small extractors whose behaviour is written in the content they are given; importable by Spark's Python workers.

They come in as another package's kinds do: the folder beside this module names their entry points.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from smp_features.config import read_models
from smp_features.errors import ModelError
from smp_features.extractors.base import Columns, Extractor, ModelSettings, OutputColumn
from smp_features.refusals import InputRefused


class FakeSettings(ModelSettings):
    log: str
    seed: str = "1"
    broken: bool = False


@dataclass(frozen=True)
class Fake(Extractor):
    """Computes from the content's digest, and misbehaves on content that begins with a word it knows."""

    log: str
    seed: str = "1"
    broken: bool = False

    version: ClassVar[int] = 1
    Settings: ClassVar[type[ModelSettings]] = FakeSettings

    @property
    def max_cost(self) -> float:
        return 8.0

    def identity(self) -> dict[str, Any]:
        return {"extractor": self.kind, "seed": self.seed}

    def note(self, line: str) -> None:
        with open(self.log, "a") as file:
            file.write(f"{self.name} {line}\n")

    def check(self) -> None:
        self.note("check")
        if self.broken:
            raise ModelError("The fake model is broken.")

    def load(self, device: str, threads: int | None = None) -> FakeModel:
        self.note(f"load {device} {os.getpid()}")
        return FakeModel(self, device)

    def columns(self, texts: Sequence[str]) -> Columns:
        raise NotImplementedError


class FakeModel:
    def __init__(self, extractor: Fake, device: str) -> None:
        self._extractor = extractor
        self._device = device

    def prepare(self, raw: bytes | str) -> tuple[str, float]:
        text = raw.decode() if isinstance(raw, bytes) else raw
        if not text.strip():
            raise InputRefused("empty", "The text is empty.")
        if text.startswith("refused"):
            raise InputRefused("truncated", "The file ends before the picture does.")
        if text.startswith("unprepared"):
            raise KeyError("a secret title")
        return text, 1.0

    def run(self, items: Sequence[str]) -> Columns:
        for item in items:
            word, _, rest = item.partition(" ")
            if word == "hang" or (word == "hang_once" and _first_time(rest)):
                time.sleep(600)
            elif word == "spin":  # holds the interpreter's lock as a runaway regular expression does
                import re

                re.match(r"(a+)+$", "a" * 60 + "b")
            elif word == "kill_once" and _first_time(rest):
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == "stop_once" and _first_time(rest):
                os.kill(os.getpid(), signal.SIGSTOP)
            elif word == "exit":
                os._exit(3)
            elif word == "oom" or (word == "crowded" and len(items) > 2):
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
            elif word == "raise":
                raise ValueError("a secret title")
            elif word == "slow":
                time.sleep(float(rest))
        self._extractor.note(f"run {len(items)} {self._device} {_assigned()} {os.getpid()}")
        return self._extractor.columns(items)


def _assigned() -> str:
    """The GPU address that Spark gave to the running task, asked of Spark itself; `-` without one."""
    context = TaskContext.get()
    gpu = None if context is None else context.resources().get("gpu")
    return "-" if gpu is None else ",".join(gpu.addresses)


def _first_time(path: str) -> bool:
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def vector(seed: str, text: str) -> np.ndarray:
    """The fake embedding of a text: shape (4,), float32, unit length."""
    digest = hashlib.sha256(f"{seed}{text}".encode()).digest()
    values = np.frombuffer(digest[:16], dtype=np.uint32).astype(np.float64) + 1.0
    return (values / np.linalg.norm(values)).astype(np.float32)


@dataclass(frozen=True)
class FakeEncoder(Fake):
    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        return (OutputColumn("embedding", pa.list_(pa.float32()), ""),)

    def columns(self, texts: Sequence[str]) -> Columns:
        values = np.stack([vector(self.seed, text) for text in texts])
        values[[text.startswith("nan") for text in texts]] = np.nan
        return {"embedding": values}

    @property
    def name(self) -> str:
        return f"{self.model}_{self.reads}"


@dataclass(frozen=True)
class FakeClipImage(FakeEncoder):
    model: str = field(default="clip", kw_only=True)

    kind: ClassVar[str] = "clip_image"
    reads: ClassVar[Literal["image", "text"]] = "image"
    table: ClassVar[str] = "image_embeddings"
    noun: ClassVar[str] = "image embedding"


@dataclass(frozen=True)
class FakeClipText(FakeEncoder):
    model: str = field(default="clip", kw_only=True)

    kind: ClassVar[str] = "clip_text"
    reads: ClassVar[Literal["image", "text"]] = "text"
    table: ClassVar[str] = "text_embeddings"
    noun: ClassVar[str] = "text embedding"
    texts: ClassVar[tuple[str, ...]] = ("title", "captions")


class FakeClip:
    Settings = FakeSettings

    @classmethod
    def build(cls, model: str, settings: FakeSettings) -> tuple[Extractor, ...]:
        given = settings.model_dump(exclude={"kind"})
        return FakeClipImage(**given, model=model), FakeClipText(**given, model=model)


@dataclass(frozen=True)
class FakeCaption(Fake):
    model: str = field(default="caption", kw_only=True)

    kind: ClassVar[str] = "caption"
    reads: ClassVar[Literal["image", "text"]] = "image"
    table: ClassVar[str] = "captions"
    noun: ClassVar[str] = "caption"
    makes_text: ClassVar[str | None] = "caption"

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        return (OutputColumn("caption", pa.string(), ""),)

    def columns(self, texts: Sequence[str]) -> Columns:
        return {"caption": [f"a picture of {text.split()[0]}" for text in texts]}


@dataclass(frozen=True)
class FakePerplexity(Fake):
    model: str = field(default="language", kw_only=True)

    kind: ClassVar[str] = "perplexity"
    reads: ClassVar[Literal["image", "text"]] = "text"
    table: ClassVar[str] = "perplexities"
    noun: ClassVar[str] = "perplexity"

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        return (
            OutputColumn("log_perplexity", pa.float64(), ""),
            OutputColumn("token_count", pa.int32(), ""),
            OutputColumn("truncated", pa.bool_(), ""),
        )

    def columns(self, texts: Sequence[str]) -> Columns:
        return {
            "log_perplexity": np.array([np.inf if t.startswith("nan") else len(t) / 10 for t in texts]),
            "token_count": np.array([len(t.split()) for t in texts], dtype=np.int32),
            "truncated": np.array([len(t) > 30 for t in texts]),
        }


def fakes(log: str, **fields: Any) -> dict[str, ModelSettings]:
    """The section `models` of a configuration in which fakes have all three roles."""
    kinds = {"caption": "fake_caption", "clip": "fake_clip", "language": "fake_perplexity"}
    return read_models({role: {"kind": kind, "log": log, **fields} for role, kind in kinds.items()})
