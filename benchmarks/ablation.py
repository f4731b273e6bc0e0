"""What each feature group is worth on the source's posts, left out and added: `smp ablate`, as a user would run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contents import REPOSITORY
from benchmarks.end_to_end import CONF, TO_TRAINING_SET, run_stages
from benchmarks.results import table

SPLITS = ("chronological", "identity")

DEMO_MODELS_ROWS = ("image", "caption", "text", "similarity", "perplexity")
"""Groups that the bundled models make: on other posts than the demo's they are noise."""

Row = Mapping[str, Any]


def measure(bench: Bench) -> dict[str, Any]:
    """Make features of the source with the demo models, then have `smp ablate` measure the groups."""
    root = bench.work / "ablation"
    shutil.rmtree(root, ignore_errors=True)
    run_stages(root, bench.source, TO_TRAINING_SET)
    named = [option for split in SPLITS for option in ("--split", split)]
    place = ["--conf", str(CONF), "--root", str(root), "--set", f"source.path={bench.source}"]
    quick = ["--set", "training.regressor.rounds=20", "--set", "training.bootstrap=100"] if bench.quick else []
    command = [sys.executable, "-m", "smp_features.cli", "ablate", *named, *place, *quick, "--format", "json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(root)
    return {"cells": json.loads(done.stdout)}


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section: one table per way of taking the groups, with a pair of columns per split."""
    cells: list[Row] = figures["cells"]
    posts = {split: next(cell["n"] for cell in cells if cell["split"] == split) for split in SPLITS}
    told = ", ".join(f"`{split}` {count:,} posts" for split, count in posts.items())
    parts = [_table(name, [cell for cell in cells if cell["table"] == name]) for name in _names(cells)]
    return f"""## Ablation

What each feature group is worth: {told}. `smp ablate` trains a model per row. A change is against the row named under
"against", over the same posts, with a 95 % interval by a paired bootstrap over users; bold ones exclude zero.

The models are the bundled demo models, which know only the demo's scenes. On other posts, the rows {_listed()} show
what noise does, not what real models are worth.

{chr(10).join(parts)}
{_by_chance(cells)}
"""


def _names(cells: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(cell["table"] for cell in cells))


def _table(name: str, cells: Sequence[Row]) -> str:
    by_place = {(cell["split"], cell["features"]): cell for cell in cells}
    rows = list(dict.fromkeys(cell["features"] for cell in cells))
    head = [name, "against", *(f"{split}: {what}" for split in SPLITS for what in ("SRC / MAE", "ΔSRC", "ΔMAE"))]
    return table(head, ([row, _against(by_place, row), *_values(by_place, row)] for row in rows))


def _against(by_place: Mapping[tuple[str, str], Row], row: str) -> str:
    found = {by_place[split, row]["against"] for split in SPLITS if (split, row) in by_place}
    return ", ".join(sorted(str(against) for against in found if against is not None))


def _values(by_place: Mapping[tuple[str, str], Row], row: str) -> list[str]:
    values: list[str] = []
    for split in SPLITS:
        cell = by_place.get((split, row))
        if cell is None:
            values += ["", "", ""]
            continue
        scores = " / ".join("–" if cell[measure] is None else cell[measure] for measure in ("SRC", "MAE"))
        values += [scores, _change(cell["SRC change"]), _change(cell["MAE change"])]
    return values


def _change(said: str | None) -> str:
    if said is None:
        return ""
    return said.removesuffix(" within noise") if said.endswith(" within noise") else f"**{said}**"


def _by_chance(cells: Sequence[Row]) -> str:
    said = [cell[f"{measure} change"] for cell in cells for measure in ("SRC", "MAE")]
    intervals = [each for each in said if each is not None]
    excluded = sum(not each.endswith(" within noise") for each in intervals)
    return (
        f"Of the {len(intervals)} intervals {excluded} exclude zero; where there is nothing, about "
        f"{0.05 * len(intervals):.0f} do by chance."
    )


def _listed() -> str:
    return f"{', '.join(DEMO_MODELS_ROWS[:-1])} and {DEMO_MODELS_ROWS[-1]}"
