"""A virtual environment for each contender that cannot live in the main one, with the versions it was tried with.

torch, torchvision and numpy are the main environment's everywhere; transformers and open_clip too, except where a tool
asks for older ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bootstrap import UV, diagnose, uv_environment

TORCH = ("torch==2.9.1", "torchvision==0.24.1", "numpy==1.26.4", "pillow==13.0.0")
MODELS = ("transformers==5.23.0", "open-clip-torch==3.3.0", "safetensors==0.8.0")

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "ray_data": ("ray[data]==2.60.0", "pyarrow==19.0.1", "pandas==2.3.3", *MODELS, *TORCH),
    "daft": ("daft==0.7.26", "pyarrow==19.0.1", *MODELS, *TORCH),
    "clip_retrieval": (
        "clip-retrieval==2.45.0",  # asks for open_clip below 3, and through it for an older transformers
        "all-clip==1.3.0",
        "open-clip-torch==2.32.0",
        "transformers==4.57.6",
        "sentence-transformers==2.7.0",
        "webdataset==0.2.111",
        "setuptools==69.5.1",  # OpenAI's clip imports packaging from it
        "pyarrow==15.0.2",
        "pandas==2.3.3",
        *TORCH,
    ),
}
"""Packages by contender; one that is not here runs in the main environment."""

INSTALLED = "installed.txt"


class InstallError(Exception):
    """An environment could not be made; the message is the reason, in one line."""


def python_for(contender: str, work: Path) -> Path:
    """Return the Python that runs a contender, making its environment when it is not there yet.

    Args:
        contender: The contender's module.
        work: The folder that environments are kept in between runs.

    Raises:
        InstallError: With what the installer says.
    """
    if contender not in ENVIRONMENTS:
        return Path(sys.executable)
    folder = work / "environments" / contender
    python, stamp = folder / "bin" / "python", folder / INSTALLED
    wanted = "\n".join(ENVIRONMENTS[contender]) + "\n"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"   making an environment for {contender}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--python", str(python), *ENVIRONMENTS[contender])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def tool_version(contender: str) -> str | None:
    """Return the name and version of what a contender's environment is for; None for the main one."""
    packages = ENVIRONMENTS.get(contender)
    return packages[0].replace("==", " ") if packages else None


def _uv(*arguments: str) -> None:
    pip_config = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    done = subprocess.run(
        [str(UV), *arguments],
        env=uv_environment(pip_config, os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise InstallError(_reason(done.stdout))


def _reason(output: str) -> str:
    # What the resolver says is the reason itself; anything else is told in the words of the set-up.
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    because = next((line for line in lines if "Because" in line), None)
    return because[:300] if because else diagnose(output)[:300]
