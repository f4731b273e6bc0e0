"""The examples in docstrings run and print what they say; those that name `spark` get a session and an empty lake."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import smp_features

FINDER = doctest.DocTestFinder(exclude_empty=True)


def _examples() -> list[doctest.DocTest]:
    found = {}
    for module in pkgutil.walk_packages(smp_features.__path__, "smp_features."):
        if ".zoo." not in module.name:
            for test in FINDER.find(importlib.import_module(module.name)):
                if test.examples:
                    found[test.name] = test
    return list(found.values())


def _needs_spark(test: doctest.DocTest) -> bool:
    return any("spark" in example.source for example in test.examples)


EXAMPLES = _examples()


def _check(test: doctest.DocTest) -> None:
    printed: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=printed.append)
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("test", [each for each in EXAMPLES if not _needs_spark(each)], ids=lambda each: each.name)
def test_an_example_prints_what_it_says(test):
    _check(test)


@pytest.mark.parametrize("test", [each for each in EXAMPLES if _needs_spark(each)], ids=lambda each: each.name)
def test_an_example_on_tables_prints_what_it_says(test, spark, lakehouse, config):
    test.globs.update(spark=spark, config=config)
    _check(test)
