"""Distinct pictures and titles by the thousand, made from the few that a posts folder holds.

Contents are deduplicated by their bytes, so a repeated picture would be no work: repeats are cropped by a few pixels
and encoded again, and titles get another title's word.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
POSTERS = REPOSITORY.parent / "shared" / "data" / "posters"
GENERATED_POSTS = 2000
POSTER_CONTENTS = 2000
"""Distinct pictures of the posters, and as many distinct titles; what goes beyond are variants."""
POSTERS_NAME = "film posters and their titles"
POSTS = (
    "The film posters are 2,000 posts with a picture and a title each. Where a measurement takes more rows, the rest "
    "are variants of these: a picture cropped by a few pixels and encoded again as JPEG, a title with a word of "
    "another title put in. To the extractors each is a content of its own, computed in full."
)
MADE_UP = "made-up pictures and titles"
ROWS_PER_FILE_GROUP = 256

PICTURES = pa.schema([("number", pa.int64()), ("key", pa.string()), ("content", pa.binary())])
TITLES = pa.schema([("number", pa.int64()), ("key", pa.string()), ("content", pa.string())])


def find_source(given: Path | None, work: Path) -> Path:
    """Return the posts folder that contents are made from: the given one, the posters, or generated posts."""
    if given is not None:
        return given
    if POSTERS.is_dir():
        return POSTERS
    generated = work / "generated-posts"
    if not generated.exists():
        from smp_features.demo.generate import generate

        generate(GENERATED_POSTS, generated, seed=7)
    return generated


def name_of_source(source: Path) -> str:
    """Return what figures call a source; never its path."""
    return {POSTERS.name: POSTERS_NAME, "generated-posts": "generated posts"}.get(
        source.name, "the posts folder given by --source"
    )


def say_variants(source: str, kind: str, rows: int, start: int) -> str:
    """Say how many of the posters' contents are as they are and how many are variants; nothing for other sources.

    Args:
        source: What figures call it.
        kind: `image` or `text`.
        rows: How many contents.
        start: Contents left out at the beginning.
    """
    if source != POSTERS_NAME:
        return ""
    as_they_are = max(0, min(rows, POSTER_CONTENTS - start))
    contents, variants = (
        ("pictures", "posters cropped by a few pixels and encoded again")
        if kind == "image"
        else ("texts", "titles with a word of another title put in")
    )
    if as_they_are == rows:
        return f"All {rows:,} {contents} are the posters' as they are."
    others = f"{rows - as_they_are:,} are {variants}"
    return f"Of the {rows:,} {contents} {as_they_are:,} are the posters' as they are; {others}."


def write_contents(kind: str, source: Path, count: int, path: Path, start: int = 0) -> Path:
    """Write distinct contents as one Parquet file of `number`, `key` (SHA-256) and `content`; an existing file is kept.

    Args:
        kind: `image` or `text`.
        source: A posts folder.
        count: How many.
        path: The file.
        start: Contents to leave out at the beginning, so that two files share none.
    """
    if path.exists():
        return path
    schema, found = (PICTURES, pictures(source)) if kind == "image" else (TITLES, titles(source))
    unfinished = path.with_suffix(".unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = enumerate(islice(found, start, start + count), start)
    with pq.ParquetWriter(unfinished, schema) as writer:
        while group := [(number, *content) for number, content in islice(rows, ROWS_PER_FILE_GROUP)]:
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    unfinished.rename(path)
    return path


def pictures(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield endless distinct pictures, key and encoded bytes: first the files as they are, then variations."""
    suffixes = {".jpg", ".jpeg", ".png", ".gif", ".webp"}
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in suffixes)
    usable = [path for path in files if _opens(path)]
    if not usable:
        raise SystemExit("The source holds no usable pictures; give another with --source.")
    return _distinct(_picture(path, turn) for turn in _count() for path in usable)


def titles(source: Path) -> Iterator[tuple[str, str]]:
    """Yield endless distinct titles, key and text: first the titles as they are, then variations."""
    found: list[str] = []
    for split in ("train", "test"):
        for path in sorted((source / f"{split}_allmetadata_json").glob("*_text.json")):
            found += [str(row.get("Title", "")) for row in json.loads(path.read_text(encoding="utf-8"))]
    found = [title for title in dict.fromkeys(found) if title.strip()]
    if not found:
        raise SystemExit("The source holds no titles; give another with --source.")
    words = sorted({word for title in found for word in title.split()})
    order = np.random.default_rng(7).permutation(len(words))
    return _distinct(
        (_title(title, place, turn, words, order)) for turn in _count() for place, title in enumerate(found)
    )


def _picture(path: Path, turn: int) -> bytes:
    if turn == 0:
        return path.read_bytes()
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
        left, top = turn % 12, turn // 12 % 12
        cropped = rgb.crop((min(left, rgb.width // 4), min(top, rgb.height // 4), rgb.width, rgb.height))
        encoded = io.BytesIO()
        cropped.save(encoded, "JPEG", quality=90 - turn // 144 % 8)
    return encoded.getvalue()


def _title(title: str, place: int, turn: int, words: list[str], order: np.ndarray) -> str:
    if turn == 0:
        return title
    kept = title.split()
    other = words[order[(place * 31 + turn) % len(words)]]
    kept.insert(turn % (len(kept) + 1), other)
    # As many words as before, where there are several: lengths stay those of real titles.
    return " ".join(kept[:-1] if len(kept) > 2 and kept[-1] != other else kept)


def _distinct(contents: Iterator[bytes] | Iterator[str]) -> Iterator[tuple[str, bytes | str]]:
    seen: set[str] = set()
    for content in contents:
        raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        key = hashlib.sha256(raw).hexdigest()
        if key not in seen:
            seen.add(key)
            yield key, content


def _count() -> Iterator[int]:
    turn = 0
    while True:
        yield turn
        turn += 1


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True
