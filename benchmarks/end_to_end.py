"""The whole pipeline on a posts folder with the demo models, as a user would run it, and its training set as arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.contents import REPOSITORY
from smp_features.config import Config, load_config
from smp_features.lake.tables import Lakehouse
from smp_features.training import snapshot as snapshots

CONF = REPOSITORY / "conf" / "demo.yaml"
TO_TRAINING_SET = ("ingest", "extract", "features", "training-set")


def configuration(root: Path, source: Path) -> Config:
    """Return what the stages are run with."""
    return load_config(CONF, [f"source.path={source}"], root=str(root))


def run_stages(root: Path, source: Path, stages: Iterable[str]) -> None:
    """Run stages by the command line, one after the other."""
    for stage in stages:
        command = [sys.executable, "-m", "smp_features.cli", stage, "--conf", str(CONF), "--root", str(root)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        subprocess.run([*command, "--set", f"source.path={source}"], env=environment, check=True)


def exported(lakehouse: Lakehouse) -> snapshots.Snapshot:
    """Return a snapshot of the present training set."""
    version = lakehouse.version("training_set")
    return snapshots.export(lakehouse, version, snapshots.content_key(lakehouse, version))
