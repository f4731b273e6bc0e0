"""`make bench`: run the benchmarks, each in a process of its own, keep their figures, render RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import REPOSITORY, find_source, name_of_source
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from benchmarks.race import KINDS
from benchmarks.results import render, save
from benchmarks.today import CONTENDERS

NAMES = (
    *(f"ceiling:{extractor}" for extractor in KINDS), "small_models",
    *(f"today:{extractor}" for extractor in CONTENDERS), "rerun", "scale", "ingest", "fault_cost:executor",
    "fault_cost:random", "gpu", "recovery:effects", "recovery:permuted", "rolling", "ablation", "training", "reading",
)  # fmt: skip
"""Modules of this package, each with `measure(bench) -> figures`, None where this machine has nothing to measure, and
`section(figures) -> Markdown`; `CONTENTS` where one makes its own, by part where only a part does.

What follows a colon is a part that is measured by itself, since all of them take hours; both functions get it too.
"""


def main() -> int:
    """Measure what is named, or everything; render what is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none means all")
    scratch = Path(tempfile.gettempdir()) / "smp-benchmarks"
    parser.add_argument("--work", type=Path, default=scratch, help="folder for models, contents and lakehouses")
    parser.add_argument("--source", type=Path, help="a posts folder; default: the posters, else generated posts")
    parser.add_argument("--seed", type=int, help="of the kills at random; default: a fresh one, kept with the figures")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes of work; figures are not kept")
    parser.add_argument("--render", action="store_true", help="only render RESULTS.md from the figures kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return _measure(arguments)
    wanted = [name for name in NAMES if {name, name.partition(":")[0]} & set(arguments.names)]
    unknown = set(arguments.names) - {part for name in NAMES for part in (name, name.partition(":")[0])}
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in () if arguments.render else wanted or NAMES:
        print(f"== {name}", flush=True)
        again = [value for value in sys.argv[1:] if value not in arguments.names]
        if subprocess.run([sys.executable, "-m", "benchmarks", *again, "--one", name], check=False).returncode:
            failed.append(name)
    if not arguments.quick:
        sections = {name: of(name, "section") for name in NAMES}
        (REPOSITORY / "benchmarks" / "RESULTS.md").write_text(render(sections, contents_of), encoding="utf-8")
    if failed:
        print(f"Not measured, see above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def of(name: str, function: str) -> Callable[[Any], Any]:
    """Return a benchmark's `measure` or `section`."""
    part = name.partition(":")[2]
    found = getattr(_module(name), function)
    return partial(found, part=part) if part else found


def contents_of(name: str) -> str | None:
    """Return what a benchmark makes its contents of, or None where they come from the source."""
    found: str | dict[str, str] | None = getattr(_module(name), "CONTENTS", None)
    return found.get(name.partition(":")[2]) if isinstance(found, dict) else found


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name.partition(':')[0]}")


def _measure(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("smp_features").setLevel(logging.INFO)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    source = find_source(arguments.source, work)
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    figures = of(arguments.one, "measure")(Bench(work, source, arguments.quick, seed))
    if figures is None:
        print("   not on this machine, see the benchmark; its figures stay as they are", flush=True)
        return 0
    if arguments.quick:
        print(json.dumps(figures, indent=2))
        return 0
    save(
        arguments.one,
        {
            "commit": describe_commit(),
            "measured_at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "contents": contents_of(arguments.one) or name_of_source(source),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "figures": figures,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
