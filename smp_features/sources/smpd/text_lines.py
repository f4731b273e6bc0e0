"""Reads the one-value-per-line files: labels, image paths, external profiles."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from smp_features.errors import SourceError


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without their ends; a byte-order mark is skipped.

    Raises:
        SourceError: A line is not UTF-8; with file and line.
    """
    for number, raw in raw_lines(path):
        try:
            yield raw.decode().rstrip("\n")
        except UnicodeDecodeError:
            raise SourceError(f"{path}:{number}: bytes that are not UTF-8.", "Save it as UTF-8.") from None


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file as bytes, ends included, with their numbers from 1; a byte-order mark is skipped.

    Raises:
        SourceError: It begins as UTF-16 or UTF-32 does.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                refuse_utf16(path, raw)
                raw = raw.removeprefix(codecs.BOM_UTF8)
            yield number, raw


def refuse_utf16(path: Path, start: bytes) -> None:
    """Refuse a file that begins as UTF-16 or UTF-32 does.

    Raises:
        SourceError: It does; with file and line.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or start[:2].count(b"\0") == 1:
        raise SourceError(f"{path}:1: the file's encoding is UTF-16, and UTF-8 is expected.", "Save it as UTF-8.")


def clean_path(line: str) -> str:
    """Return an image path without the quotes, carriage return and blanks that real files have around it."""
    return line.strip().strip("\"'").strip()
