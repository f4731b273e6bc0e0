"""Rows as text: nothing in them acts on a terminal, in a spreadsheet or against a JSON parser."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from datetime import datetime
from decimal import Decimal

import pytest
from rich.cells import cell_len

from smp_features.tabular import count_not_finite, one_line, render, visible

ACTING = {
    "escape": "\x1b[2J\x1b[31mred", "one byte escape": "\x9b31mred", "bell": "a\x07b", "backspace": "ok\b\bno",
    "return": "safe\rfake", "delete": "a\x7fb", "null": "a\x00b", "hyperlink": "\x1b]8;;http://x\x07y\x1b]8;;\x07",
    "override": "abc\u202egnp.exe", "isolate": "a\u2066b\u2069", "mark": "a\u200fb", "arabic mark": "a\u061cb",
    "zero width": "ad\u200bmin", "byte order": "\ufeffabc", "separator": "a\u2028b\u2029c", "tags": "a\U000e0041b",
    "half a pair": "a\ud800b", "soft hyphen": "pass\u00adword",
}  # fmt: skip


@pytest.mark.parametrize("text", ACTING.values(), ids=ACTING)
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_no_character_acts_on_a_terminal_or_hides(text, form):
    printed = render([{"title": text, text: "a"}], form)
    printed.encode()  # half a pair could not be
    acting = [letter for letter in printed if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert set(acting) <= {"\n"}
    if form == "json":
        assert json.loads(printed) == [{"title": text, text: "a"}]
    else:
        assert "\\" in printed


def test_what_is_shown_by_its_code_can_be_read_back_and_words_stay_as_they_are():
    assert visible("a\x1b[0m\u202eb\x9b") == "a\\x1b[0m\\u202eb\\x9b"
    for text in ("Ünïcode 😀", "👩\u200d👩\u200d👧", "日本語", "שלום", "a\u0301"):
        assert visible(text) == text


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1+1", "＝1", "=cmd|' /C calc'!A0", "-5", "\u00a0=1"]
)  # fmt: skip
def test_a_spreadsheet_computes_no_text_of_a_csv(text):
    [head, row] = csv.reader(io.StringIO(render([{"n": -5, text: text, "x": -2.5, "d": Decimal("-1.5")}], "csv")))
    assert head[1].startswith("'") and row[1].startswith("'")
    assert [row[0], row[2], row[3]] == ["-5", "-2.5", "-1.5"]


def test_texts_that_are_no_formula_and_all_numbers_stay_as_they_are_in_csv():
    rows = [{"pid": "1", "n": 2.5, "v": [1, 2], "b": True}, {"pid": 'a,"b\nc', "n": None, "v": [], "b": None}]
    assert list(csv.reader(io.StringIO(render(rows, "csv")))) == [
        ["pid", "n", "v", "b"], ["1", "2.5", "[1, 2]", "true"], ['a,"b\nc', "", "[]", ""],
    ]  # fmt: skip


def test_json_is_strict_and_numbers_that_are_not_finite_are_null():
    nan, inf = float("nan"), float("inf")
    rows = [{"a": nan, "b": [inf, 1.5], "c": {"d": -inf, 1: nan}, "e": Decimal("1.5"), "f": Decimal("2"), "g": True}]

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(render(rows, "json"), parse_constant=refuse) == [
        {"a": None, "b": [None, 1.5], "c": {"d": None, "1": None}, "e": 1.5, "f": 2, "g": True}
    ]
    assert count_not_finite(rows) == 4
    assert json.loads(render([{"at": datetime(2026, 1, 2, 3, 4, 5)}], "json")) == [{"at": "2026-01-02 03:04:05"}]


def test_bytes_are_told_by_length_and_hex_and_never_raw():
    rows = [{"bytes": b"\xff\xd8" * 20, "few": bytearray(b"\x1b")}]
    assert render(rows, "table").splitlines()[1].split("  ")[0] == "40 bytes " + "ffd8" * 8 + "…"
    assert json.loads(render(rows, "json")) == [{"bytes": "ffd8" * 20, "few": "1b"}]
    assert render(rows, "csv").splitlines()[1] == "ffd8" * 20 + ",1b"


def test_wide_characters_take_two_columns_and_what_follows_them_is_aligned():
    titles = ["日本語の題", "abc", "😀😀", "a\u0301bc", "한국어"]
    lines = render([{"title": title, "next": "x"} for title in titles], "table").splitlines()
    assert len({cell_len(line[: line.rindex("x")]) for line in lines[1:]}) == 1
    [_, cut] = render([{"title": "語" * 100}], "table").splitlines()
    assert cell_len(cut) <= 60 and cut.endswith("…")


def test_rows_print_as_a_table_with_null_and_short_numbers():
    assert render([{"a": None, "n": 0.123456789}], "table").splitlines()[1].split() == ["null", "0.123457"]
    assert render([], "table") == "(no rows)\n"
    assert (render([], "csv"), render([], "json")) == ("", "[]\n")


def test_a_message_is_one_line_whatever_it_quotes():
    assert one_line("There is no table\n 'a\x1b[0m\u202e'.") == "There is no table 'a\\x1b[0m\\u202e'."
