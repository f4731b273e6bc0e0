"""Rows as text that is safe where it is read: on a terminal, in a spreadsheet, by a JSON parser."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

WIDEST_VALUE = 60
"""Columns of the terminal that a value takes at most in a table."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a text begins with that a spreadsheet would compute, as it is or after it has folded the wide forms."""

_JOINERS = "\u200c\u200d"
"""Invisible, and part of words and emoji."""

_SHOWN_BYTES = 16


def render(rows: list[dict[str, Any]], form: str) -> str:
    """Return rows as text.

    Args:
        rows: Rows with equal keys.
        form: `table` for people: control characters and those that turn the direction of writing are shown by their
            codes, long values are cut. `csv`: the same codes, line breaks aside, and a text that a spreadsheet would
            take for a formula gets an apostrophe before it; numbers stay numbers. `json`: one array of strict JSON,
            in which numbers that are not finite are null. Bytes are shown by hex digits in all of them.

    >>> print(render([{"title": "=1+1", "n": -2}], "csv"), end="")
    title,n
    '=1+1,-2
    """
    if form == "json":
        text = json.dumps(_strict(rows), ensure_ascii=False, allow_nan=False)
        return "".join(_escaped(letter) if _is_hidden(letter) else letter for letter in text) + "\n"
    if not rows:
        return "" if form == "csv" else "(no rows)\n"
    return _csv(rows) if form == "csv" else _table(rows)


def visible(text: str) -> str:
    """Return a text with every character shown that would act on a terminal or hide: by its code, as Python writes it.

    >>> visible("\\x1b[31mred\\u202e")
    '\\\\x1b[31mred\\\\u202e'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_code(letter) if _is_hidden(letter) else letter for letter in text)


def count_not_finite(value: Any) -> int:
    """Return how many numbers in rows are NaN or infinite, which JSON has no word for."""
    if isinstance(value, float | Decimal):
        return 0 if math.isfinite(value) else 1
    if isinstance(value, Mapping):
        return sum(count_not_finite(below) for below in value.values())
    return sum(map(count_not_finite, value)) if isinstance(value, list | tuple) else 0


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(name) for name in rows[0]])
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool)):
        return value
    text = "\n".join(visible(line) for line in _text(value).replace("\r\n", "\n").split("\n"))
    raw = value if isinstance(value, str) else text
    begins = unicodedata.normalize("NFKC", raw.lstrip(" \u00a0\ufeff\u200b")[:1]) or raw[:1]
    return f"'{text}" if begins.startswith(_FORMULA) or raw.startswith(_FORMULA) else text


def _table(rows: list[dict[str, Any]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        values = [row[name] for row in rows]
        numeric = all(value is None or (_is_number(value)) for value in values)
        table.add_column(Text(_cut(visible(name))), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_short(value)) for value in row.values()))
    buffer = io.StringIO()
    console = Console(file=buffer, width=max(Console().width, 160), markup=False, highlight=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _short(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes | bytearray):
        more = "…" if len(value) > _SHOWN_BYTES else ""
        return f"{len(value):,} bytes {bytes(value[:_SHOWN_BYTES]).hex()}{more}".rstrip()
    return _cut(visible(_text(value)))


def _cut(text: str) -> str:
    """Return a text of at most `WIDEST_VALUE` columns; wide letters take two, marks over letters none."""
    from rich.cells import cell_len, set_cell_size

    text = text[: 8 * WIDEST_VALUE]  # letters may carry any number of marks
    return text if cell_len(text) <= WIDEST_VALUE else set_cell_size(text, WIDEST_VALUE - 1).rstrip() + "…"


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(_strict(value), ensure_ascii=False) if isinstance(value, list | tuple | dict) else str(value)


def _strict(value: Any) -> Any:
    """Return a value of what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _strict(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(below) for below in value]
    if isinstance(value, Decimal):
        value = float(value) if value % 1 else int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _is_hidden(letter: str) -> bool:
    """Whether a character controls a terminal, turns the direction of writing, or is not seen at all."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in _JOINERS


def _code(letter: str) -> str:
    return (
        letter.encode("unicode_escape").decode() if ord(letter) < 0xD800 or ord(letter) > 0xDFFF else _escaped(letter)
    )


def _escaped(letter: str) -> str:
    """Return a character as JSON writes it by its code."""
    return json.dumps(letter)[1:-1] if ord(letter) != 0x7F else "\\u007f"


_LINES = re.compile(r"\s*[\r\n]+\s*")


def one_line(text: str) -> str:
    """Return a message as one line that is safe to show."""
    return visible(_LINES.sub(" ", text.strip()))
