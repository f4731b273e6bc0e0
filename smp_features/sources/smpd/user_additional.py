"""Reads user_additional.txt: external profile counts by path alias, crawled years after the posts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from smp_features.sources.base import Refusal, Row
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.text_lines import raw_lines

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


def read_external(path: Path) -> Iterator[Row | Refusal]:
    """Yield alias and counts of each line, and its number as `line`; or why it is no profile: `bad_profile`.

    A row named None is somebody whose alias is the word that marks a missing one: joining it would give every user
    without an alias this stranger's profile, so it is left out. Blank lines and a heading are no rows.

    Args:
        path: The file.

    Raises:
        SourceError: The file is not in UTF-8 at all.
    """
    for line, raw in raw_lines(path):
        try:
            profile = _profile(raw.decode(), line)
        except ValueError as error:  # which a UnicodeDecodeError is
            detail = "The line is not UTF-8." if isinstance(error, UnicodeDecodeError) else str(error)
            yield Refusal(f"{path.name}:{line}", None, "bad_profile", detail)
            continue
        if profile is not None:
            yield profile


def _profile(text: str, line: int) -> Row | None:
    parts = [part for part in _SEPARATOR.split(text.strip().replace('"', "")) if part]
    if not parts:
        return None
    alias, *stated = parts
    counts = [fields.count(part) for part in stated]
    missing = [part.lower() in fields.MISSING_TEXT for part in stated]
    wrong = [value is None and not absent for value, absent in zip(counts, missing, strict=True)]
    if line == 1 and stated and all(wrong):
        return None  # a heading
    if len(stated) != len(COUNTS) or any(wrong):
        raise ValueError(f"The line is not an alias and {len(COUNTS)} counts, separated by blanks.")
    if fields.optional_text(alias) is None:
        return None
    return {"alias": alias, "line": line, **dict(zip(COUNTS, counts, strict=True))}
