"""The list of faults names tests that exist, and leaves none of them out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
INDEX = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")


def test_every_fault_of_extraction_and_security_has_a_test_that_exists():
    rows = re.findall(r"^\| (\d+) \|.*\|(.+)\|$", INDEX, re.MULTILINE)
    numbers = [int(number) for number, _ in rows]
    assert numbers == sorted(set(numbers))
    assert {*range(1, 17), *range(43, 51)} <= set(numbers)
    for number, tests in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named, f"fault {number} has no test"
        for path, name in named:
            tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"fault {number}: {path} has no {name}"
