"""Rolling validation over later years on real posts: the model beside a plain LightGBM on metadata, over five seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks.bench import Bench
from benchmarks.end_to_end import TO_TRAINING_SET, configuration, exported, run_stages
from benchmarks.results import table
from smp_features.config import Config
from smp_features.lake.schema import Schema
from smp_features.lake.tables import Lakehouse
from smp_features.metrics import Bootstrap, percentile_interval, points, weighted_mean, weighted_src
from smp_features.session import get_session
from smp_features.training import snapshot as snapshots
from smp_features.training.experiment import inputs_of
from smp_features.training.nested import Nest, cross_fit, divisions_of, held_out_of
from smp_features.training.train import epochs_of

SEEDS = (1, 2, 3, 4, 5)
SPLITS = ("rolling", "identity")
RESAMPLES = 1000
OURS, PLAIN = "model", "plain"

Floats = NDArray[np.float64]


def measure(bench: Bench) -> dict[str, Any]:
    """Make features of the source with the demo models, then fit both for every seed and later year."""
    root = bench.work / "rolling"
    shutil.rmtree(root, ignore_errors=True)
    run_stages(root, bench.source, TO_TRAINING_SET)
    config = configuration(root, bench.source)
    session = get_session(config)
    snapshot = exported(Lakehouse(session, config))
    session.stop()
    rows = snapshots.read(snapshot)
    seeds = SEEDS[: 1 if bench.quick else None]
    found = {split: _compare(split, rows, snapshot, config, seeds) for split in SPLITS}
    shutil.rmtree(root)
    return {"seeds": len(seeds), "members": list(config.training.regressor.members), "splits": found}


def _compare(
    split: str, rows: snapshots.Columns, snapshot: snapshots.Snapshot, config: Config, seeds: Sequence[int]
) -> dict[str, Any]:
    target = rows["popularity"].astype(np.float64)
    inputs = inputs_of(config, Schema.of(config).catalogue, snapshot)
    made: dict[str, list[Floats]] = {OURS: [], PLAIN: []}
    for seed in seeds:
        training = config.training.model_copy(update={"seed": seed})
        divisions = divisions_of(split, rows, seed)
        nest = Nest(rows, lambda columns: epochs_of(snapshot, rows, columns), training)
        made[OURS].append(cross_fit(nest, inputs, divisions, len(target))[0])
        plain = np.full(len(target), np.nan)
        for division in divisions:
            plain[division.held_out] = _plain(rows, config, snapshot, division.train, division.held_out, seed)
        made[PLAIN].append(plain)
    held_out = held_out_of(divisions_of(split, rows, seeds[0]))
    actual = target[held_out]
    drawn = Bootstrap(rows["user"][held_out].astype(np.int64), RESAMPLES, seeds[0])
    scores = {
        name: [points(actual, predicted[held_out]) for predicted in predictions] for name, predictions in made.items()
    }
    pairs = [(ours[held_out], plain[held_out]) for ours, plain in zip(made[OURS], made[PLAIN], strict=True)]
    return {
        "n": int(held_out.sum()),
        "users": drawn.users,
        "scores": scores,
        "difference": {
            "src": _difference(drawn, pairs, lambda predicted: weighted_src(actual, predicted)),
            "mae": _difference(drawn, pairs, lambda predicted: weighted_mean(np.abs(predicted - actual))),
        },
        "parts": [
            {
                "part": division.name,
                **{
                    name: points(target[division.held_out], predictions[0][division.held_out])
                    for name, predictions in made.items()
                },
            }
            for division in divisions_of(split, rows, seeds[0])
        ],
    }


def _plain(
    rows: snapshots.Columns,
    config: Config,
    snapshot: snapshots.Snapshot,
    train: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    seed: int,
) -> Floats:
    """LightGBM as its documentation shows it, on the columns that come with a post; categories as codes, no history."""
    catalogue = Schema.of(config).catalogue
    inputs = inputs_of(config, catalogue, snapshot, (*catalogue.content_groups, "history"))
    inputs = replace(inputs, buckets={})
    columns = np.stack([rows[name].astype(np.float64) for name in (*inputs.numbers, *inputs.vocabularies)], axis=1)
    model = lightgbm.LGBMRegressor(random_state=seed, verbose=-1)
    model.fit(columns[train], rows["popularity"][train])
    return np.asarray(model.predict(columns[held_out]), dtype=np.float64)


def _difference(
    drawn: Bootstrap,
    pairs: Sequence[tuple[Floats, Floats]],
    statistic: Callable[[Floats], Callable[[Floats], Floats]],
) -> dict[str, Any]:
    """Return ours minus plain, the mean over seeds, paired on every resample of users."""
    both = [(statistic(ours), statistic(plain)) for ours, plain in pairs]

    def mean(weights: Floats) -> Floats:
        return np.asarray(np.mean([ours(weights) - plain(weights) for ours, plain in both], axis=0))

    value = float(mean(np.ones((1, len(pairs[0][0]))))[0])
    return percentile_interval(value, drawn.distributions({"change": mean})["change"], 0.95).as_json()


def section(figures: dict[str, Any]) -> str:
    """Return the Markdown section."""
    parts = [
        "## Scores on real posts\n",
        f"Features by the demo models, boosters {', '.join(figures['members'])}; means over {figures['seeds']} seeds, "
        "in brackets the range. `rolling`: each of the last three years in turn, trained on all years before it. "
        "`plain`: LightGBM with its default settings, which leave nothing to chance, on the metadata that come with a "
        "post: neither tags nor earlier posts, and nothing tuned. The folds of `identity` are those of the training "
        "set for every seed. The difference is paired over users, 95 %.\n",
    ]
    for split, found in figures["splits"].items():
        rows = [
            (name, _mean(found["scores"][name], "src"), _mean(found["scores"][name], "mae")) for name in (OURS, PLAIN)
        ]
        rows.append(("difference", *(_interval(found["difference"][measure]) for measure in ("src", "mae"))))
        parts += [
            f"Split `{split}`, {found['n']:,} posts of {found['users']:,} users:\n",
            table(("", "SRC", "MAE"), rows),
        ]
        if split == "rolling":
            years = [
                (
                    part["part"].removeprefix("year "),
                    part[OURS]["n"],
                    *(f"{part[name]['src']:.3f} / {part[name]['mae']:.3f}" for name in (OURS, PLAIN)),
                )
                for part in found["parts"]
            ]
            parts.append(table(("year, first seed", "posts", f"{OURS}: SRC / MAE", f"{PLAIN}: SRC / MAE"), years))
    return "\n".join(parts)


def _mean(scores: Sequence[dict[str, float]], measure: str) -> str:
    values = [score[measure] for score in scores]
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _interval(found: dict[str, Any]) -> str:
    noise = "" if found["excludes_zero"] else ", not distinguishable"
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]{noise}"
