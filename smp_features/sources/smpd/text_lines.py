"""Reads the one-value-per-line files: labels, image paths, external profiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smp_features.errors import SourceError


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without their ends; a byte-order mark is skipped.

    Raises:
        SourceError: A line is not UTF-8; with file and line.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise SourceError(f"{path}:{number}: bytes that are not UTF-8.") from None
            yield line.rstrip("\n")


def clean_path(line: str) -> str:
    """Return an image path without the quotes, carriage return and blanks that real files have around it."""
    return line.strip().strip("\"'").strip()
