"""YAML of settings: safe, bounded in size and depth, without keys that are there twice; mistakes are named by line."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from smp_features.errors import ConfigError

MOST_BYTES = 1_000_000
DEEPEST = 20
MOST_VALUES = 10_000
"""Values, those that aliases repeat counted each time: nested aliases make billions out of a few lines."""

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with bounds, for which `1e-3` is a number, as YAML 1.2 has it."""

    def __init__(self, text: str, place: str) -> None:
        super().__init__(text)
        self._place = place
        self._depth = 0
        self._values = 0
        self._open: set[str] = set()
        self._sizes: dict[str, int] = {}

    def refusal(self, mark: Any, reason: str) -> ConfigError:
        line = "" if mark is None else f":{mark.line + 1}"
        return ConfigError(f"{self._place}{line}: {reason}.")

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor: Any = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise self.refusal(event.start_mark, f"the alias *{anchor} stands inside of what it names")
            self._count(event, self._sizes.get(anchor, 1))
            return super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        before = self._values
        self._count(event, 1)
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.refusal(event.start_mark, f"values are nested more than {DEEPEST} levels deep")
        if anchor is not None:
            self._open.add(anchor)
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if anchor is not None:
            self._open.discard(anchor)
            self._sizes[anchor] = self._values - before
        return node

    def _count(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise self.refusal(event.start_mark, f"there are more than {MOST_VALUES:,} values, aliases counted in full")

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                raise self.refusal(key_node.start_mark, "a key must be a word; put quotes around it")
            if key_node.value in seen:
                first = seen[key_node.value]
                raise self.refusal(
                    key_node.start_mark, f"the key '{key_node.value[:60]}' was already set in line {first}"
                )
            seen[key_node.value] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (ValueError, ArithmeticError, LookupError, AttributeError):  # PyYAML lets them through
            what = "date" if node.tag.endswith(":timestamp") else "value"
            raise self.refusal(node.start_mark, f"'{str(node.value)[:40]}' is no {what} that there is") from None


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if _NUMBER.fullmatch(str(text)):
        return float(str(text))
    return float(loader.construct_yaml_float(node))


# Before YAML's own pattern of floats, which wants a dot and a sign, so that 1e-3 would be a word.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(text: str, place: str) -> Any:
    """Return what a YAML text holds.

    Args:
        text: The text.
        place: What messages call it, such as a file's path.

    Raises:
        ConfigError: It is not YAML, would run code, holds a key twice or a date that does not exist, or is too large,
            too deep, or made so by aliases.

    >>> read_yaml("{rate: 1e-3, seed: 7}", "example.yaml")
    {'rate': 0.001, 'seed': 7}
    """
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise ConfigError(f"{place} is longer than {MOST_BYTES:,} bytes.", "Settings are short texts.")
    loader = None
    try:
        loader = _Loader(text, place)
        return loader.get_single_data()  # type: ignore[no-untyped-call]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed")
        raise ConfigError(f"{place}{line} is not valid YAML: {problem.splitlines()[0][:150]}.") from None
    except RecursionError:
        raise ConfigError(f"{place}: values are nested too deep.") from None
    finally:
        if loader is not None:
            loader.dispose()  # type: ignore[no-untyped-call]


def is_finite(value: Any) -> bool:
    """Whether a number is one: not infinite, not NaN, and within the range of floats."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
