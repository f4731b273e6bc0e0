"""External profiles are read by alias, without the stranger named None."""

from __future__ import annotations

from pathlib import Path

import pytest

from smp_features.sources.base import Refusal
from smp_features.sources.smpd.user_additional import COUNTS, read_external


def read(tmp_path: Path, text: str) -> list[dict[str, object]]:
    path = tmp_path / "user_additional.txt"
    path.write_text(text)
    return list(read_external(path))


def test_a_line_is_an_alias_and_eight_counts(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "snow_fan 1 2 3 4 5 6 7 8\r\n\n")
    assert row == {"alias": "snow_fan", "line": 1, **dict(zip(COUNTS, range(1, 9), strict=True))}


def test_the_row_named_none_is_left_out(tmp_path: Path) -> None:
    rows = read(tmp_path, "None 9 9 9 9 9 9 9 9\nnone 9 9 9 9 9 9 9 9\na 1 1 1 1 1 1 1 1\n")
    assert [row["alias"] for row in rows] == ["a"]


def test_a_missing_count_is_null_and_a_heading_is_no_row(tmp_path: Path) -> None:
    rows = read(tmp_path, "alias views tags geo faves in photos followers followings\na None 2 3 4 5 6 7 8\n")
    assert [(row["alias"], row["external_views"]) for row in rows] == [("a", None)]


@pytest.mark.parametrize(
    "line",
    [b"a 1 2 3 4 5 6 7", b"a 1 2 3 4 5 6 7 8 9", b"a 1 2 3 x 5 6 7 8", b"a 1 2 3 -4 5 6 7 8", b"\xe9 1 2 3 4 5 6 7 8"],
)
def test_another_line_is_refused_alone_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "user_additional.txt"
    path.write_bytes(b"b 1 2 3 4 5 6 7 8\n" + line + b"\nc 1 2 3 4 5 6 7 8\n")
    first, refused, last = read_external(path)
    assert isinstance(refused, Refusal)
    assert (refused.source_row, refused.reason) == ("user_additional.txt:2", "bad_profile")
    assert isinstance(first, dict) and isinstance(last, dict) and (first["alias"], last["alias"]) == ("b", "c")
