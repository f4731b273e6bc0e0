"""Scans a folder once with whatever `smp_features` is on the path, and prints what a row took, as JSON.

A script, not a part of the benchmarks: it is run with an older checkout too, so it uses what both have.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from smp_features.ingest.scan import scan
from smp_features.ingest.staging import StagingArea
from smp_features.lake.files import open_store
from smp_features.runs import Phases
from smp_features.sources.smpd import SmpdSource

WARM_UP = 2
"""The first scan loads what is imported when it is needed; the last is measured."""


def main(folder: str) -> None:
    """Scan a folder and stage its rows, as an ingest does before Spark has anything to do."""
    for _ in range(WARM_UP):
        with tempfile.TemporaryDirectory() as scratch:
            source = SmpdSource(SmpdSource.Settings(path=folder), Path(scratch))
            holds_files: Any = SimpleNamespace(files=open_store(f"{scratch}/lake"))
            began, used = time.perf_counter(), time.process_time()
            found = scan(source, Path(scratch), "run", Phases(), StagingArea(holds_files, "run").add)
            seconds, cpu = time.perf_counter() - began, time.process_time() - used
    print(json.dumps({"rows": found.rows.total(), "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main(sys.argv[1])
