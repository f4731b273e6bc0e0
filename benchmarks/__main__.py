"""`make bench`: run the benchmarks, each in a process of its own, keep their figures, render RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contents import REPOSITORY, find_source, name_of_source
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.results import render, save

NAMES = ("ceiling", "small_models", "today", "rerun", "scale", "fault_cost", "recovery", "rolling", "training")
"""Modules of this package, each with `measure(bench) -> figures` and `section(figures) -> Markdown`."""


def main() -> int:
    """Measure what is named, or everything; render what is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none means all")
    scratch = Path(tempfile.gettempdir()) / "smp-benchmarks"
    parser.add_argument("--work", type=Path, default=scratch, help="folder for models, contents and lakehouses")
    parser.add_argument("--source", type=Path, help="a posts folder; default: the posters, else generated posts")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes of work; figures are not kept")
    parser.add_argument("--render", action="store_true", help="only render RESULTS.md from the figures kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return _measure(arguments)
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in () if arguments.render else arguments.names or NAMES:
        print(f"== {name}", flush=True)
        again = [value for value in sys.argv[1:] if value not in arguments.names]
        if subprocess.run([sys.executable, "-m", "benchmarks", *again, "--one", name], check=False).returncode:
            failed.append(name)
    if not arguments.quick:
        sections = {name: importlib.import_module(f"benchmarks.{name}").section for name in NAMES}
        (REPOSITORY / "benchmarks" / "RESULTS.md").write_text(render(sections), encoding="utf-8")
    if failed:
        print(f"Not measured, see above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measure(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("smp_features").setLevel(logging.INFO)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    source = find_source(arguments.source, work)
    figures = importlib.import_module(f"benchmarks.{arguments.one}").measure(Bench(work, source, arguments.quick))
    if arguments.quick:
        print(json.dumps(figures, indent=2))
        return 0
    save(
        arguments.one,
        {
            "measured_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "contents": name_of_source(source),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "figures": figures,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
