"""What figures were measured on: processor, cores, memory, versions; nothing that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.contents import REPOSITORY

PACKAGES = (
    "smp-features",
    "pyspark",
    "delta-spark",
    "torch",
    "torchvision",
    "transformers",
    "open_clip_torch",
    "pyarrow",
)


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, object]:
    """Return processor model, usable cores, memory in GiB and operating system."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_commit() -> str | None:
    """Return the commit measured, with a plus where code differs from it; None outside of a checkout."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)

    commit = git("rev-parse", "--short", "HEAD").stdout.strip()
    differs = git("diff", "--quiet", "HEAD", "--", "*.py", "*.yaml").returncode
    return f"{commit}{'+' if differs else ''}" if commit else None


def describe_versions() -> dict[str, str]:
    """Return Python's version and those of the packages that decide speed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
