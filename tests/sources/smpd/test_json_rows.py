"""Rows of a JSON file come in order from either container, in small pieces, and errors name file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smp_features.errors import SourceError
from smp_features.sources.smpd import json_text
from smp_features.sources.smpd.json_rows import JsonRows

ROWS = [{"Pid": str(n), "Title": f'a \u2665 "quoted" {{[,:]}} {n}', "n": n} for n in range(40)]
LOWER = [{key.lower(): value for key, value in row.items()} for row in ROWS]


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "rows.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, limit: int | None = None) -> list[dict[str, object]]:
    return list(JsonRows(path, path.parent / "spill.sqlite", limit))


def columns(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    return {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_both_containers_give_the_same_rows_whatever_the_size_of_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_text, "CHUNK_BYTES", chunk)
    assert read(write(tmp_path, json.dumps(ROWS, indent=indent, ensure_ascii=False))) == LOWER
    assert read(write(tmp_path, json.dumps(columns(ROWS), indent=indent, ensure_ascii=False))) == LOWER


def test_columns_are_put_in_order_of_their_row_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": {"2": "z", "0": "x", "1": "y"}, "b": {"1": 1, "0": 0, "2": 2}}')
    assert read(path) == [{"a": "x", "b": 0}, {"a": "y", "b": 1}, {"a": "z", "b": 2}]


def test_columns_are_cut_to_the_limit(tmp_path: Path) -> None:
    assert read(write(tmp_path, json.dumps(columns(ROWS))), limit=3) == LOWER[:3]


def test_the_spill_file_is_gone_afterwards(tmp_path: Path) -> None:
    read(write(tmp_path, json.dumps(columns(ROWS))))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_odd_values_survive(tmp_path: Path) -> None:
    text = '[{"a": "\\ud83d", "b": NaN, "c": 123456789012345678901234567890, "d": null, "e": "\\ud83d\\ude00"}]'
    row = read(write(tmp_path, b"\xef\xbb\xbf" + text.encode()))[0]
    assert row["a"] == "\ud83d" and row["c"] == 123456789012345678901234567890 and row["e"] == "\U0001f600"
    assert row["b"] is None and row["d"] is None
    values = {"a": "\ud83d", "c": 123456789012345678901234567890, "d": True, "e": ["dog", 1.5], "f": {"g": 2}}
    spilled = read(write(tmp_path, json.dumps({name: {"0": value} for name, value in values.items()})))[0]
    assert spilled == values | {"a": "\ufffd"} and spilled["d"] is True


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[\n{"a": 1},\n{"a": ', 3, "truncated"),
        ('[\n{"a": 1},\n{"a": 1}', 3, "truncated"),
        ('[\n{"a": 1},\n{"a": "no end\n', 4, "truncated"),
        ('[\n{"a": 1},\n{"a" 2},\n{"a": 3}, {"a": "long enough to be behind the edge"}]', 3, "malformed"),
        ('[\n{"a": 1}\n{"a": 2}]', 3, "malformed"),
        ('[{"a": 1}]\n]', 2, "after the end"),
        ('{"a": {"0": 1},\n"b": {"0": }}', 2, "malformed"),
        ('{"a": {"0": 1},\n"b": {"0": 1', 2, "truncated"),
        ("", 1, "empty"),
        ('\n"text"', 2, "neither a list of records nor an object of columns"),
        ("17", 1, "neither a list of records nor an object of columns"),
        ('[\n2, {"a": 1}]', 2, "neither a list of records nor an object of columns"),
        ('{"Uid": "1@N01"}', 1, "neither a list of records nor an object of columns"),
        ('{"Uid": ["1@N01"]}', 1, "neither a list of records nor an object of columns"),
        ('{"Uid": {"first": "1@N01"}}', 1, "neither a list of records nor an object of columns"),
        ('{"a": {"0": 1, "0": 2}}', 1, "twice"),
        ('{"a": {"0": 1}, "A": {"0": 2}}', 1, "twice"),
    ],
)
def test_what_is_no_rows_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SourceError) as refused:
        read(path)
    assert refused.value.message.startswith(f"{path}:{line}:")
    assert reason in refused.value.message
    assert "no end" not in str(refused.value)


def test_columns_of_different_lengths_are_refused_with_their_counts(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": {"0": 1, "1": 2}, "b": {"0": 1}}')
    with pytest.raises(SourceError, match=r"rows\.json: columns have different numbers of rows: a 2, b 1"):
        read(path)


def test_a_gap_in_the_row_numbers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '{"a": {"0": 1, "1": 2}, "b": {"0": 1, "2": 2}}')
    with pytest.raises(SourceError, match="column 'b' has no row number 1"):
        read(path)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, b'[{"a": 1},\n{"a": "\xff"}]')
    with pytest.raises(SourceError, match=r"rows\.json:\d+: bytes that are not UTF-8"):
        read(path)


def test_memory_does_not_grow_with_a_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "CHUNK_BYTES", 100)
    monkeypatch.setattr(json_text, "MAX_VALUE_CHARS", 1_000)
    path = write(tmp_path, '[{"a": "' + "x" * 100_000)
    with path.open("rb") as file:
        text = json_text.JsonText(path, file)
        with pytest.raises(SourceError, match="malformed"):
            list(text.elements())
        assert file.tell() < 2_000
