"""Fields are parsed whatever their spelling, and missing means null."""

from __future__ import annotations

import pytest

from smp_features.sources.smpd import fields


@pytest.mark.parametrize("value", [None, "", "  ", "None", "null", "NaN", "0", 0])
def test_missing_texts_are_null(value: object) -> None:
    assert fields.optional_text(value) is None


def test_zero_is_a_text_where_the_field_says_so() -> None:
    assert fields.optional_text("0", zero_is_missing=False) == "0"


def test_a_title_is_kept_as_it_is_but_for_lone_surrogates() -> None:
    assert fields.text_of("  a ?? \n") == "  a ?? \n"
    assert fields.text_of("a\ud83db") == "a\ufffdb"
    assert fields.text_of(None) == ""
    assert fields.text_of(7) == "7"


@pytest.mark.parametrize(("value", "expected"), [("3", 3.0), (3, 3.0), (" 2.5 ", 2.5), ("1e3", 1000.0)])
def test_numbers_come_from_texts_and_numbers(value: object, expected: float) -> None:
    assert fields.number(value) == expected


@pytest.mark.parametrize("value", [None, "", "None", "nan", "inf", "-inf", True, "1,5", "1_5", [], float("nan")])
def test_what_is_no_finite_number_is_null(value: object) -> None:
    assert fields.number(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1425168000", 1_425_168_000),
        (1_425_168_000, 1_425_168_000),
        ("1425168000.0", 1_425_168_000),
        ("0", None),
        (-5, None),
        ("12", None),
        ("1425168000000", None),
        ("None", None),
        ("2015-03-01", None),
        (None, None),
    ],
)
def test_times_are_unix_seconds_or_null(value: object, expected: int | None) -> None:
    assert fields.seconds(value) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("6.41", 6.41),
        ('"6.41"\r', 6.41),
        ("0", 0.0),
        ("", None),
        ("nan", None),
        ("-1", None),
        ("64", None),
        ("x", None),
    ],
)
def test_labels_are_finite_and_within_reach_of_a_64_bit_count(line: str, expected: float | None) -> None:
    assert fields.popularity(line) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), (1, True), ("True", True), ("0", False), (0, False), (False, False), ("None", None), (None, None)],
)
def test_flags(value: object, expected: bool | None) -> None:
    assert fields.flag(value) is expected


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (("25.05", "121.5", "16"), (25.05, 121.5, 16)),
        ((25.05, "-121.5", 11), (25.05, -121.5, 11)),
        (("0", "", "0"), (None, None, None)),
        (("25.05", "121.5", "0"), (None, None, None)),
        (("25.05", "", "16"), (None, None, None)),
        (("None", "None", "0"), (None, None, None)),
        ((None, None, None), (None, None, None)),
        (("91", "10", "16"), (None, None, None)),
        (("10", "181", "16"), (None, None, None)),
        (("nan", "10", "16"), (None, None, None)),
        (("25.05", "121.5", ""), (25.05, 121.5, None)),
        (("0", "0", None), (None, None, None)),
        (("25.05", "121.5", "17"), (25.05, 121.5, None)),
    ],
)
def test_a_place_is_whole_or_absent(stated: tuple[object, ...], expected: tuple[object, ...]) -> None:
    assert fields.place(*stated) == expected
