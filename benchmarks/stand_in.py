"""Extractors that wait a constant time per input instead of computing, and small made-up posts for them.

What they take on top of that time is the machinery's. Spark's workers import this module by name; the configuration
finds its kinds as it finds another package's, by the entry points in the folder `kinds`.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession

from smp_features.extractors.base import Columns, Extractor, ModelSettings, OutputColumn

KINDS = Path(__file__).parent / "kinds"
if str(KINDS) not in sys.path:
    sys.path.append(str(KINDS))

WIDTH = 64
"""Numbers in a vector, as many as the demo models' have."""

BATCH_ROWS = 64

_NOTED_BYTES = 65  # a digest in hexadecimal and a line break

_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "xu", "za")


class StandInSettings(ModelSettings):
    seconds_per_row: float
    log: str | None = None


@dataclass(frozen=True)
class StandIn(Extractor):
    """Sleeps, so that the cores stay the machinery's, and derives its outputs from the content's digest.

    Attributes:
        seconds_per_row: How long an input takes.
        log: A folder where every process notes the digests of what it computed; None notes nothing.
    """

    seconds_per_row: float
    log: str | None = None

    version: ClassVar[int] = 1
    Settings: ClassVar[type[ModelSettings]] = StandInSettings

    @property
    def max_cost(self) -> float:
        return float(BATCH_ROWS)

    def identity(self) -> dict[str, Any]:
        return {"stand_in": self.kind, "width": WIDTH}

    def check(self) -> None:
        return

    def load(self, device: str, threads: int | None = None) -> StandInModel:
        return StandInModel(self)

    def columns(self, digests: Sequence[bytes]) -> Columns:
        raise NotImplementedError


class StandInModel:
    """A stand-in in one process."""

    def __init__(self, extractor: StandIn) -> None:
        self._extractor = extractor
        self._file = f"{extractor.name}-{uuid.uuid4().hex}"

    def prepare(self, raw: bytes | str) -> tuple[bytes, float]:
        return hashlib.sha256(raw.encode() if isinstance(raw, str) else raw).digest(), 1.0

    def run(self, items: Sequence[bytes]) -> Columns:
        time.sleep(len(items) * self._extractor.seconds_per_row)
        if self._extractor.log is not None:  # opened each time: a worker keeps its model, and the folder is moved away
            with open(Path(self._extractor.log) / self._file, "ab") as file:
                file.write(b"".join(item.hex().encode() + b"\n" for item in items))
        return self._extractor.columns(items)


@dataclass(frozen=True)
class _Encoder(StandIn):
    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        return (OutputColumn("embedding", pa.list_(pa.float32()), ""),)

    def columns(self, digests: Sequence[bytes]) -> Columns:
        drawn = b"".join(hashlib.shake_128(digest).digest(2 * WIDTH) for digest in digests)
        values = np.frombuffer(drawn, np.uint16).reshape(-1, WIDTH).astype(np.float32) - 32767.5
        return {"embedding": values / np.linalg.norm(values, axis=1, keepdims=True)}

    @property
    def name(self) -> str:
        return f"{self.model}_{self.reads}"


@dataclass(frozen=True)
class StandInClipImage(_Encoder):
    model: str = field(default="clip", kw_only=True)

    kind: ClassVar[str] = "clip_image"
    reads: ClassVar[Literal["image", "text"]] = "image"
    table: ClassVar[str] = "image_embeddings"
    noun: ClassVar[str] = "image embedding"


@dataclass(frozen=True)
class StandInClipText(_Encoder):
    model: str = field(default="clip", kw_only=True)

    kind: ClassVar[str] = "clip_text"
    reads: ClassVar[Literal["image", "text"]] = "text"
    table: ClassVar[str] = "text_embeddings"
    noun: ClassVar[str] = "text embedding"
    texts: ClassVar[tuple[str, ...]] = ("title", "captions")


class StandInClip:
    Settings = StandInSettings

    @classmethod
    def build(cls, model: str, settings: StandInSettings) -> tuple[Extractor, ...]:
        given = settings.model_dump(exclude={"kind"})
        return StandInClipImage(**given, model=model), StandInClipText(**given, model=model)


@dataclass(frozen=True)
class StandInCaption(StandIn):
    model: str = field(default="caption", kw_only=True)

    kind: ClassVar[str] = "caption"
    reads: ClassVar[Literal["image", "text"]] = "image"
    table: ClassVar[str] = "captions"
    noun: ClassVar[str] = "caption"
    makes_text: ClassVar[str | None] = "caption"

    @property
    def outputs(self) -> tuple[OutputColumn, ...]:
        return (OutputColumn("caption", pa.string(), ""),)

    def columns(self, digests: Sequence[bytes]) -> Columns:
        return {"caption": [f"a picture of {digest.hex()[:12]}" for digest in digests]}


@dataclass(frozen=True)
class StandInPerplexity(StandIn):
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

    def columns(self, digests: Sequence[bytes]) -> Columns:
        return {
            "log_perplexity": np.array([digest[0] / 32 for digest in digests]),
            "token_count": np.array([digest[1] for digest in digests], dtype=np.int32),
            "truncated": np.zeros(len(digests), dtype=bool),
        }


def stand_ins(seconds_per_row: float, log: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the section `models` of a configuration in which stand-ins have all three roles."""
    kinds = {"caption": "stand_in_caption", "clip": "stand_in_clip", "language": "stand_in_perplexity"}
    settings = {"seconds_per_row": seconds_per_row, "log": None if log is None else str(log)}
    return {role: {"kind": kind, **settings} for role, kind in kinds.items()}


def computed_rows(log: Path) -> tuple[int, int]:
    """Return how many inputs were computed, and how many of these computations were repeats.

    Args:
        log: The folder that the stand-ins noted them in.
    """
    noted = [f"{path.name.split('-')[0]} {line}" for path in log.iterdir() for line in path.read_text().splitlines()]
    return len(noted), len(noted) - len(set(noted))


def noted_rows(log: Path) -> int:
    """Return how many inputs were computed so far, by the size of what was noted."""
    return sum(path.stat().st_size for path in log.iterdir()) // _NOTED_BYTES


def make_posts(session: SparkSession, folder: Path, count: int, start: int = 0) -> tuple[Path, Path]:
    """Make distinct small pictures (0.3 to 2 kB PNG) and titles, in parallel; those made before are kept.

    Args:
        session: Spark, whose workers can import this module.
        folder: Where they are kept.
        count: How many of each.
        start: Number of the first one; the same number is always the same post.

    Returns:
        Folders of Parquet files of `number`, `key` and `content`: the pictures', the titles'.
    """
    made = []
    for kind, sql_type in (("pictures", "binary"), ("titles", "string")):
        path = folder / f"{kind}-{start}-{start + count}"
        if not (path / "_SUCCESS").exists():
            numbers = session.range(start, start + count, 1, max(2, min(32, count // 1000)))
            rows = numbers.mapInArrow(globals()[f"_{kind}"], f"number long, key string, content {sql_type}")
            rows.write.mode("overwrite").parquet(str(path))
        made.append(path)
    return made[0], made[1]


def _pictures(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield _contents(batch.column(0), [_picture(number) for number in batch.column(0).to_pylist()], pa.binary())


def _titles(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield _contents(batch.column(0), [_title(number) for number in batch.column(0).to_pylist()], pa.string())


def _contents(numbers: pa.Array, contents: Sequence[bytes | str], kind: pa.DataType) -> pa.RecordBatch:
    raws = [content.encode() if isinstance(content, str) else content for content in contents]
    keys = [hashlib.sha256(raw).hexdigest() for raw in raws]
    return pa.RecordBatch.from_arrays([numbers, pa.array(keys), pa.array(contents, kind)], ["number", "key", "content"])


def _picture(number: int) -> bytes:
    side = 9 + number % 16
    pixels = hashlib.shake_128(f"picture {number}".encode()).digest(3 * side * side)
    encoded = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _title(number: int) -> str:
    drawn = hashlib.shake_128(f"title {number}".encode()).digest(9)
    words = ["".join(_SYLLABLES[part] for part in (byte % 16, byte // 16)) for byte in drawn[: 3 + drawn[8] % 6]]
    return " ".join([*words, str(number)])
