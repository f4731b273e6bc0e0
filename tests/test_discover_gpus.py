"""The discovery script tells Spark what nvidia-smi says, and fails rather than promise no GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "conf" / "discover_gpus.sh"


@pytest.fixture
def machine(tmp_path):
    """Run the script on a machine whose nvidia-smi lists these GPUs; None has no nvidia-smi."""

    def run(listed: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
        if listed is not None:
            program = tmp_path / "nvidia-smi"
            program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
            program.chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        path = f"{tmp_path}:/usr/bin:/bin"
        return subprocess.run(
            [str(SCRIPT)], env={**inherited, "PATH": path, **environment}, capture_output=True, text=True, check=False
        )

    return run


def test_every_gpu_has_its_address(machine):
    assert json.loads(machine("0\\n1\\n2\\n").stdout) == {"name": "gpu", "addresses": ["0", "1", "2"]}


def test_visible_devices_are_numbered_from_zero(machine):
    found = json.loads(machine("0\\n1\\n2\\n3\\n", CUDA_VISIBLE_DEVICES="2,3").stdout)
    assert found["addresses"] == ["0", "1"]


@pytest.mark.parametrize(("listed", "message"), [(None, "not on the path"), ("", "names no GPU")])
def test_a_machine_without_gpus_is_an_error(machine, listed, message):
    done = machine(listed)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
