"""What the report reads from the champion's MLflow run: scores, groups left out, importance, predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from smp_features.analysis.adaptation_section import Adaptation, Moved
from smp_features.analysis.model_sections import Ablated, Score
from smp_features.config import Config
from smp_features.metrics import Interval

SPLITS = {
    "identity": "`identity`: cross-validation in which no user is in two folds.",
    "chronological": "`chronological`: trained on the earlier posts, scored on the last 20 % by time.",
    "later_unseen": "`later_unseen`: scored on later posts, most of them of users that training never saw.",
    "rolling": "`rolling`: each of the last three years in turn, trained on all years before it.",
    "random_optimistic": "`random_optimistic`: posts split at random, which flatters: users are on both sides.",
    "gate": "`gate`: users reserved for ever, on whom a new model must beat the champion.",
}
"""What each split means, in one sentence."""


@dataclass(frozen=True)
class Trained:
    """The champion and its results.

    Attributes:
        model: Registered name.
        version: Registered version.
        head: The score that heads the report.
        scores: All scores, baselines included.
        leave_out: Group to the changes of SRC and MAE: without the group minus with it.
        importance: Gain by column of the booster.
        group_of: Column of the booster to feature group.
        oof: Out-of-fold predictions: `pid`, `uid`, `predicted`, `actual`.
        label_median: Median label of the rows trained on, log2(views + 1).
        external_used: External profile counts were among the rows trained on.
        note: How the scores came about, one paragraph.
        ablations: Split to the MLflow run of its tables of feature groups and adapters, and their cells, for the rows
            it was trained on.
        adaptation: What the adapters did to the vectors; None where there is no record of it.
    """

    model: str
    version: str
    head: Score
    scores: tuple[Score, ...]
    leave_out: Mapping[str, tuple[Interval, Interval]]
    importance: pd.Series
    group_of: Mapping[str, str]
    oof: pd.DataFrame
    label_median: float
    external_used: bool
    note: str
    ablations: Mapping[str, tuple[str, tuple[Ablated, ...]]] = field(default_factory=dict)
    adaptation: Adaptation | None = None


def champion_results(config: Config) -> Trained | None:
    """Read the champion's results; None before there is a champion.

    Args:
        config: Its `registry` section and root say where MLflow's store is.

    Raises:
        StageError: The store cannot be reached.
    """
    # MLflow takes seconds to import.
    from smp_features.training.ablate import newest_by_split
    from smp_features.training.registry import existing

    registry = existing(config)
    if registry is None:
        return None
    champion = registry.champion()
    if champion is None:
        return None
    results = registry.results(champion)
    found = trained(champion.model, champion.number, results, registry.predictions(champion))
    ablations = newest_by_split(registry, results["snapshot"])
    return replace(
        found,
        ablations={split: (run, ablated(cells)) for split, (run, cells) in ablations.items()},
        adaptation=adaptation(results, registry.laboratory(champion)),
    )


def adaptation(
    results: Mapping[str, Any], measured: tuple[Sequence[Mapping[str, Any]], pd.DataFrame] | None
) -> Adaptation | None:
    """Read what was measured of a version's adapters; None where it adapted nothing, or was not measured yet.

    Args:
        results: `results.json`.
        measured: As `Registry.laboratory` returns it.
    """
    if measured is None or not measured[0]:
        return None
    names = ("moved", "shuffled", "difference", "src_raw", "src_adapted", "gain")
    moved = [Moved(each["modality"], int(each["n"]), *(interval(each[name]) for name in names)) for each in measured[0]]
    return Adaptation(results["adapter"], moved, measured[1])


def ablated(cells: Sequence[Mapping[str, Any]]) -> tuple[Ablated, ...]:
    """Read one split's cells of `ablation.json`, as `training/ablation.py` describes them."""

    def change(cell: Mapping[str, Any], name: str) -> Interval | None:
        return None if cell[name] is None else interval(cell[name])

    return tuple(
        Ablated(
            cell["table"],
            cell["cell"],
            int(cell["n"]),
            interval(cell["src"]),
            interval(cell["mae"]),
            cell["against"],
            change(cell, "delta_src"),
            change(cell, "delta_mae"),
            cell.get("form"),  # older tables do not say
            cell.get("loss"),
        )
        for cell in cells
    )


def trained(model: str, version: str, results: Mapping[str, Any], oof: pd.DataFrame) -> Trained:
    """Read the results of a run.

    Args:
        model: Registered name.
        version: Registered version.
        results: `results.json`, as `training/experiment.py` describes it.
        oof: `oof_predictions.parquet`, with at least `pid`, `uid`, `predicted` and `actual`.
    """
    scores = tuple(score_row(entry) for entry in results["scores"])
    gains = results["importance"]
    return Trained(
        model=model,
        version=version,
        head=score_row(results["headline"]),
        scores=scores,
        leave_out={
            each["name"]: (interval(each["delta_src"]), interval(each["delta_mae"])) for each in results["leave_out"]
        },
        importance=pd.Series({each["feature"]: each["gain"] for each in gains}, dtype="float64"),
        group_of={each["feature"]: each["group"] for each in gains},
        oof=oof[["pid", "uid", "predicted", "actual"]],
        label_median=float(results["label"]["median"]),
        external_used=bool(results["external_used"]),
        note=_note(model, version, results, scores),
    )


def score_row(entry: Mapping[str, Any]) -> Score:
    """Return an entry of `scores` as a row."""
    values = [interval(entry[name]) for name in ("src", "mae", "bias")]
    return Score(entry["split"], entry["model"], entry["segment"], int(entry["n"]), *values)


def interval(held: Mapping[str, Any]) -> Interval:
    """Return an interval read from JSON, where null stands for what could not be computed."""
    value, low, high = (math.nan if held[name] is None else float(held[name]) for name in ("value", "low", "high"))
    return Interval(value, low, high, float(held["level"]))


def _note(model: str, version: str, results: Mapping[str, Any], scores: tuple[Score, ...]) -> str:
    rows = results["rows"]
    splits = " ".join(SPLITS[name] for name in dict.fromkeys(each.split for each in scores) if name in SPLITS)
    searched = ""
    if results.get("search") is not None:  # runs of before there was a search do not say
        searched = (
            f" The boosters' settings are the best of {len(results['search']['trials'])} trials by the error of "
            "out-of-fold predictions under `identity`, so the scores of all splits but `gate`, whose posts no choice "
            "has seen, are optimistic."
        )
    return (
        f"{model} version {version}, trained on {rows['labelled']:,} posts of {rows['users']:,} users. {splits} "
        "`metadata only` does without anything made by the frozen models; `median` predicts the median of its "
        f"training labels, whatever the post. Intervals: 95 %, bootstrap over users.{searched}"
    )
