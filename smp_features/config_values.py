"""Whether a value of the configuration can be what its key wants: numbers in range, texts that can be written."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from smp_features.strict_yaml import is_finite

WIDEST = 2**53
"""The range, on both sides of zero, of numbers whose field states none: whole numbers that floats still tell apart."""


def check_value(value: Any, field: FieldInfo) -> Any:
    """Return a value as it is, if its field may have it as far as this goes.

    Numbers are those written as numbers: neither a text nor true or false, finite, and in the field's range. Switches
    are true or false, dates exist, and texts hold no control characters.

    Raises:
        ValueError: It is none of these; says what is allowed.
    """
    kinds = frozenset(_kinds(field.annotation))
    if value is not None or type(None) not in kinds:
        wanted = kinds - {type(None)}
        if wanted and wanted <= {int, float}:
            _check_number(value, field, whole=float not in wanted, or_null=type(None) in kinds)
        elif wanted == {bool} and not isinstance(value, bool):
            raise ValueError(f"must be true or false{_or_null(kinds)}, not {_shown(value)}")
        elif wanted == {date}:
            return _checked_date(value, field, kinds)
    _check_texts(value)
    return value


def range_of(field: FieldInfo, whole: bool) -> str:
    """Return the range of a number in words."""
    bounds = _bounds(field)
    low = f"above {bounds['gt']:,}" if "gt" in bounds else f"from {bounds.get('ge', -WIDEST):,}"
    high = f"below {bounds['lt']:,}" if "lt" in bounds else f"to {bounds.get('le', WIDEST):,}"
    if "gt" in bounds or "lt" in bounds:
        joined = f"{low}, {high.replace('to ', 'at most ')}"
    else:
        joined = f"{low} {high}"
    return f"a {'whole number' if whole else 'number'} {joined}"


def _check_number(value: Any, field: FieldInfo, *, whole: bool, or_null: bool) -> None:
    bounds = _bounds(field)
    right = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and is_finite(value)
        and (not whole or value == int(value))
        and value >= bounds.get("ge", value if "gt" in bounds else -WIDEST)
        and value <= bounds.get("le", value if "lt" in bounds else WIDEST)
        and ("gt" not in bounds or value > bounds["gt"])
        and ("lt" not in bounds or value < bounds["lt"])
    )
    if not right:
        raise ValueError(f"must be {range_of(field, whole)}{', or null' if or_null else ''}; it is {_shown(value)}")


def _checked_date(value: Any, field: FieldInfo, kinds: Iterable[Any]) -> date:
    bounds = _bounds(field)
    found = value
    if isinstance(value, str):
        try:
            found = date.fromisoformat(value)
        except ValueError:
            found = None
    elif isinstance(value, datetime):
        found = value.date() if value.time().replace(microsecond=0).isoformat() == "00:00:00" else None
    low, high = bounds.get("ge", date.min), bounds.get("lt", date.max)
    if not isinstance(found, date) or not low <= found < high:
        raise ValueError(
            f"must be a date such as 2016-03-01, from {low} and before {high}{_or_null(kinds)}; it is {_shown(value)}"
        )
    return found


def _check_texts(value: Any) -> None:
    """Refuse texts that no file, table or message can hold: with control characters, or half a character."""
    for text in _texts(value):
        if any(ord(letter) < 32 and letter not in "\n\t" for letter in text) or "\x7f" in text:
            raise ValueError("holds a control character")
        if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise ValueError("holds half of a surrogate pair, which is no character")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(key)
            yield from _texts(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below)


def _kinds(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _kinds(each)
    else:
        yield annotation


def _bounds(field: FieldInfo) -> dict[str, Any]:
    return {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(rule, name, None) is not None
    }


def _or_null(kinds: Iterable[Any]) -> str:
    return ", or null" if type(None) in kinds else ""


def _shown(value: Any) -> str:
    """Return a wrong value in a few characters; of a text, which may be a secret, only that it is one."""
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping | list | tuple):
        return "keys and values" if isinstance(value, Mapping) else "a list"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    try:
        text = str(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 24 else f"{text[:20]}…"
