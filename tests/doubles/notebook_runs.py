"""Notebooks of this repository, run on a lakehouse as a user's Jupyter would."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import smp_features

REPOSITORY = Path(smp_features.__file__).parents[1]
FOLDER = REPOSITORY / "notebooks"


def executed(name: str, root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run a notebook from top to bottom; return the outputs of its code cells."""
    for variable, value in {
        "SMP_ROOT": root,
        "PYTHONPATH": str(REPOSITORY),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }.items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(FOLDER / name, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures_in(outputs: list[Any]) -> list[bytes]:
    """Return the figures among outputs, as PNG; small ones are broken ones."""
    found = [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 10_000 for picture in found)
    return found
