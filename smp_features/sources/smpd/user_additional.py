"""Reads user_additional.txt: external profile counts by path alias, crawled years after the posts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from smp_features.errors import SourceError
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.text_lines import read_lines

COUNTS = (
    "external_views",
    "external_tags",
    "external_geotagged",
    "external_faves",
    "external_in_group",
    "external_photos",
    "external_followers",
    "external_followings",
)
"""The eight counts of a line, in order; the columns of `user_profiles` of the same names."""

_SEPARATOR = re.compile(r"[\s,]+")


def read_external(path: Path) -> Iterator[dict[str, str | int | None]]:
    """Yield alias and counts of each line, and its number as `line`.

    A row named None is somebody whose alias is the word that marks a missing one: joining it would give every user
    without an alias this stranger's profile, so it is left out. Blank lines and a heading are no rows.

    Args:
        path: The file.

    Raises:
        SourceError: A line is not an alias and eight counts; with file and line.
    """
    for line, text in enumerate(read_lines(path), 1):
        parts = [part for part in _SEPARATOR.split(text.strip().replace('"', "")) if part]
        if not parts:
            continue
        alias, *stated = parts
        counts = [fields.count(part) for part in stated]
        missing = [part.lower() in fields.MISSING_TEXT for part in stated]
        wrong = [value is None and not absent for value, absent in zip(counts, missing, strict=True)]
        if line == 1 and stated and all(wrong):
            continue  # a heading
        if len(stated) != len(COUNTS) or any(wrong):
            raise SourceError(f"{path}:{line}: expected an alias and {len(COUNTS)} counts, separated by blanks.")
        if fields.optional_text(alias) is not None:
            yield {"alias": alias, "line": line, **dict(zip(COUNTS, counts, strict=True))}
