"""The list of faults is complete, and names guards and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
INDEX = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
FAULTS = range(1, 85)


def test_every_fault_has_a_guard_and_a_test_that_exist():
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| `([^|]+)` \| (.+) \|$", INDEX, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(FAULTS)
    for number, guard, tests in rows:
        assert (TESTS.parent / "smp_features" / guard).is_file(), f"fault {number}: there is no {guard}"
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named, f"fault {number} has no test"
        for path, name in named:
            tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"fault {number}: {path} has no {name}"
