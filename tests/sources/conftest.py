"""A package of somebody else's that brings a kind of source, installed where only a test looks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smp_features import plugins

PACKAGE = Path(__file__).parents[1] / "packages" / "jsonl_posts"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as pip installs it."""
    made = tmp_path_factory.mktemp("jsonl")
    shutil.copytree(PACKAGE, made / "source")  # building leaves files behind
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*install, "--target", made / "site", made / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made / "site"


@pytest.fixture
def jsonl_package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package, found by its entry point."""
    monkeypatch.syspath_prepend(str(installed))
    plugins._installed.cache_clear()
    yield
    monkeypatch.undo()
    sys.modules.pop("jsonl_posts", None)
    plugins._installed.cache_clear()
