"""What was planted in made-up posts, found again: effects, scores, and nothing where labels were permuted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench
from benchmarks.end_to_end import TO_TRAINING_SET, configuration, exported, run_stages
from benchmarks.known_effects import read_planted, read_posts, recovery
from benchmarks.results import table
from smp_features.config import Config
from smp_features.demo.walkthrough import test_scores
from smp_features.lake.schema import Schema
from smp_features.lake.tables import Lakehouse
from smp_features.metrics import src
from smp_features.session import get_session
from smp_features.training import snapshot as snapshots
from smp_features.training.experiment import inputs_of
from smp_features.training.nested import Nest, cross_fit, divisions_of
from smp_features.training.train import epochs_of

CONTENTS = "generated posts"
POSTS = 10_000
SPLITS = ("identity", "chronological")
"""Under `identity` no history is seen, which is made of labels; under `chronological` it is."""

SEEDS = (1, 2, 3)
PERMUTATIONS = 10
LABELS = Path("train_allmetadata_json") / "train_label.txt"


def measure(bench: Bench, part: str) -> dict[str, Any]:
    """Generate posts from several seeds and run all stages on each (`effects`), or permute one's labels."""
    folder = bench.work / f"recovery-{part}"
    shutil.rmtree(folder, ignore_errors=True)
    posts = 1_000 if bench.quick else POSTS
    figures: dict[str, Any] = {"posts": posts}
    if part == "effects":
        figures["seeds"] = [_seed(folder / str(seed), posts, seed) for seed in SEEDS[: 1 if bench.quick else None]]
    else:
        figures["permuted"] = _permuted(folder, posts, 2 if bench.quick else PERMUTATIONS)
    shutil.rmtree(folder)
    return figures


def _seed(folder: Path, posts: int, seed: int) -> dict[str, Any]:
    source, root = _generated(folder, posts, seed), folder / "lake"
    run_stages(root, source, (*TO_TRAINING_SET, "train", "score"))
    config = configuration(root, source)
    session = get_session(config)
    try:
        lakehouse = Lakehouse(session, config)
        found = recovery(read_posts(lakehouse), read_planted(source))
        return {
            "seed": seed,
            "effects": json.loads(found.to_json(orient="records")),
            "scores": test_scores(session, config, source),
        }
    finally:
        session.stop()


def _generated(folder: Path, posts: int, seed: int) -> Path:
    source = folder / "posts"
    generate = [sys.executable, "-m", "smp_features.cli", "generate", "--posts", str(posts), "--seed", str(seed)]
    subprocess.run([*generate, "--out", str(source)], check=True)
    return source


def _permuted(folder: Path, posts: int, count: int) -> dict[str, Any]:
    """Permute the labels in the source's own file, so that all that is made from labels is made from those."""
    source, root = _generated(folder, posts, SEEDS[0]), folder / "lake"
    run_stages(root, source, TO_TRAINING_SET)
    path = source / LABELS
    labels = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, list[float]] = {split: [] for split in SPLITS}
    counts: dict[str, int] = {}
    for number in range(count):
        dealt = np.random.default_rng(number).permutation(len(labels))
        path.write_text("".join(f"{labels[place]}\n" for place in dealt), encoding="utf-8")
        run_stages(root, source, ("ingest", "features", "training-set"))
        config = configuration(root, source)
        session = get_session(config)
        snapshot = exported(Lakehouse(session, config))
        session.stop()
        for split in SPLITS:
            score, counts[split] = _src(split, snapshot, config)
            found[split].append(score)
            print(f"   permutation {number + 1}, {split}: SRC {score:+.4f} on {counts[split]:,} posts", flush=True)
    return {
        split: {
            "src": scores,
            "mean": float(np.mean(scores)),
            "bound": 3 / float(np.sqrt(counts[split])),
            "rows": counts[split],
        }
        for split, scores in found.items()
    }


def _src(split: str, snapshot: snapshots.Snapshot, config: Config) -> tuple[float, int]:
    """Return the SRC within the parts of a split, weighted by their posts, and how many those are.

    Within: without any signal each part is predicted by the mean of the others, which is low where its own is high, so
    over parts together the correlation would lie below zero.
    """
    rows = snapshots.read(snapshot)
    nest = Nest(rows, lambda columns: epochs_of(snapshot, rows, columns), config.training)
    divisions = divisions_of(split, rows, config.training.seed)
    predicted, _ = cross_fit(
        nest, inputs_of(config, Schema.of(config).catalogue, snapshot), divisions, len(rows["fold"])
    )
    actual = rows["popularity"].astype(np.float64)
    counts = [int(division.held_out.sum()) for division in divisions]
    scores = [src(actual[division.held_out], predicted[division.held_out]) for division in divisions]
    return float(np.average(scores, weights=counts)), sum(counts)


def section(figures: dict[str, Any], part: str) -> str:
    """Return the Markdown section of one part."""
    return _effects_section(figures) if part == "effects" else _permuted_section(figures)


def _effects_section(figures: dict[str, Any]) -> str:
    effects = [
        (
            found["seed"],
            row["effect"],
            f"{row['planted']:+.3f}",
            f"{row['expected']:+.3f}",
            f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            "yes" if row["covers"] else "**no**",
            f"{row['n']:,} / {row['users']:,}",
        )
        for found in figures["seeds"]
        for row in found["effects"]
    ]
    scores = [
        (
            found["seed"],
            row["who"],
            f"{row['posts']:,}",
            _number(row["SRC"]),
            _number(row["MAE"]),
            row["of the oracle's SRC"],
        )
        for found in figures["seeds"]
        for row in found["scores"]
    ]
    return "\n".join(
        [
            "## Recovery of what was planted\n",
            f"{figures['posts']:,} generated posts per seed, the demo models. Effects per unit, with user "
            "effects absorbed and time and category adjusted for, 95 % over users; `expected` is the planted "
            "coefficient as seen through the detector's measured errors, and above the label's floor of one view.\n",
            table(("seed", "effect", "planted", "expected", "estimate", "covered", "posts / users"), effects),
            f"Where nothing is wrong, all {len(effects)} intervals cover with a probability of about "
            f"{0.95 ** len(effects):.0%}.\n",
            "On the later test posts:\n",
            table(("seed", "who", "posts", "SRC", "MAE", "of the oracle's SRC"), scores),
        ]
    )


def _permuted_section(figures: dict[str, Any]) -> str:
    permuted = [
        (
            split,
            f"{found['rows']:,}",
            f"{found['mean']:+.4f} ({min(found['src']):+.4f} to {max(found['src']):+.4f})",
            f"{found['bound']:.4f}",
        )
        for split, found in figures["permuted"].items()
    ]
    draws = len(figures["permuted"][SPLITS[0]]["src"])
    return "\n".join(
        [
            "## Permuted labels\n",
            f"All labels of {figures['posts']:,} generated posts permuted in the source, {draws} times, and all that "
            "is made from labels made again. SRC within the parts of a split, out of fold, mean and range:\n",
            table(("split", "n", "SRC", "bound 3/√n"), permuted),
        ]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
