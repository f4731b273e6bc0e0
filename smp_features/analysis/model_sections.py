"""The report's sections about the model: scores, what leaving groups out does, errors, calibration, the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from smp_features import figures
from smp_features.analysis.page import Block, Cell, Note, Section, drawn, short, table
from smp_features.metrics import Bootstrap, Interval, by_interval
from smp_features.summaries import calibration, interval_label, largest_misses, verdict

NOT_TRAINED = "No trained model yet. `smp train` makes this section."

MISSES = 15
"""Rows in the table of largest misses."""

MOST_IMPORTANT = 25
"""Features drawn in the importance figure."""

_ABLATION_TABLES = (
    ("added", "the row above", "Groups added"),
    ("left out", "all", "Groups left out"),
    ("adapter", "as configured", "Choices of adapter"),
)
_UNIT = "log2(views + 1)"
_SCORE_HEADERS = ("split", "what", "posts of", "n", "SRC [95 %]", "MAE [95 %]", "bias [95 %]")
_SCORE_CAPTION = (
    f"SRC: Spearman rank correlation. MAE and bias in units of {_UNIT}; bias above zero: predicted too high"
)


@dataclass(frozen=True)
class Score:
    """One row of a score table.

    Attributes:
        split: The validation split; scores without it mean little.
        what: The model or a baseline.
        segment: Whose posts: all, seen users or unseen users.
        n: Posts.
        src: Spearman correlation.
        mae: Mean absolute error.
        bias: Mean of predicted minus actual.
    """

    split: str
    what: str
    segment: str
    n: int
    src: Interval | float | None
    mae: Interval | float | None
    bias: Interval | float | None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The row."""
        return (self.split, self.what, self.segment, self.n, self.src, self.mae, self.bias)


@dataclass(frozen=True)
class Truth:
    """What generated posts know of themselves.

    Attributes:
        oracle_src: Spearman correlation of the expectation given what the files show, on all test labels.
        oracle_mae: Its mean absolute error.
        labels: Label of each test post by pid.
    """

    oracle_src: float
    oracle_mae: float
    labels: Mapping[str, float]


def scores_section(rows: Sequence[Score], note: str) -> Section:
    """Show cross-validated scores beside the baselines.

    Args:
        rows: In order.
        note: How the scores came about, one paragraph.
    """
    if not rows:
        return Section("scores", "Scores", missing=NOT_TRAINED)
    return Section("scores", "Scores", (table(_SCORE_HEADERS, [row.cells for row in rows], _SCORE_CAPTION), Note(note)))


def leave_out_section(changes: Mapping[str, tuple[Interval, Interval]], n: int) -> Section:
    """Show what leaving out each feature group does to the score, in numbers and a plain word.

    Args:
        changes: Group to the changes of SRC and MAE: without the group minus with it.
        n: Posts behind them.
    """
    title = "What leaving a feature group out does"
    if not changes:
        return Section("leave-out", title, missing=NOT_TRAINED)
    rows: list[list[Cell]] = [[name, *change, verdict(*change)] for name, change in changes.items()]
    headers = ("left out", "ΔSRC [95 %]", f"ΔMAE, {_UNIT} [95 %]", "verdict")
    picture = drawn(
        figures.score_changes(changes),
        "Change of SRC and MAE with 95 % intervals for each group left out; the table holds the numbers.",
        "Without the group minus with it: SRC below zero and MAE above zero are worse. Filled: the interval excludes "
        "zero.",
    )
    how = (
        f"Paired bootstrap over users of out-of-fold predictions of {n:,} posts: both models are scored on the same "
        "resample each time. `costs score`: an interval excludes zero on the worse side."
    )
    return Section("leave-out", title, (table(headers, rows), picture, Note(how)))


@dataclass(frozen=True)
class Ablated:
    """One cell of the tables of feature groups and adapters.

    Attributes:
        table: `left out`, `added` or `adapter`.
        name: Its heading.
        n: Posts behind it.
        src: Spearman correlation.
        mae: Mean absolute error.
        against: The cell that it is compared with; None for the first.
        src_change: Paired change of SRC against that cell.
        mae_change: Likewise of MAE.
        form: Of the adapter that it was trained with; None without one.
        loss: Likewise.
    """

    table: str
    name: str
    n: int
    src: Interval
    mae: Interval
    against: str | None
    src_change: Interval | None
    mae_change: Interval | None
    form: str | None = None
    loss: str | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The row."""
        judged = "" if self.src_change is None or self.mae_change is None else verdict(self.src_change, self.mae_change)
        return (self.name, self.src, self.mae, self.src_change, self.mae_change, judged)


def ablation_section(splits: Mapping[str, tuple[str, Sequence[Ablated]]]) -> Section:
    """Show what each feature group and each choice of adapter is worth, on every split that `smp ablate` was run on.

    Args:
        splits: Split to the MLflow run of its tables, and the cells.
    """
    title = "What each feature group and each choice of adapter is worth"
    if not splits:
        return Section("ablation", title, missing="`smp ablate` makes this section.")
    blocks: list[Block] = []
    for split, (run, cells) in splits.items():
        added = [cell for cell in cells if cell.table == "added"]
        blocks.append(
            drawn(
                figures.score_steps({cell.name: (cell.src, cell.mae) for cell in added}),
                "SRC and MAE with 95 % intervals as feature groups are added; the table holds the numbers.",
                f"Split {split}, n = {added[0].n:,} posts. Each step adds to the one above it.",
            )
        )
        blocks += [
            _ablation_table(of, compared, what, [cell for cell in cells if cell.table == of], f"split {split}", run)
            for of, compared, what in _ABLATION_TABLES
            if any(cell.table == of for cell in cells)
        ]
    how = (
        "Every row is a model trained and validated anew. The differences are paired: both models are scored on the "
        "same resample of users each time. `adapted … instead of raw` gives the booster what the adapter makes of a "
        "vector in place of the vector; `all` gives it both. The rows of the table `adapter` see the same columns and "
        "differ from the one `as configured` in one choice each; `loss intervals` trains the adapter to name the unit "
        "interval of popularity. Choosing among them by these scores is selection: confirm it on posts that no choice "
        "has seen."
    )
    return Section("ablation", title, (*blocks, Note(how)))


def _ablation_table(of: str, compared: str, what: str, cells: Sequence[Ablated], split: str, run: str) -> Block:
    headers = (of, "SRC [95 %]", "MAE [95 %]", "ΔSRC [95 %]", "ΔMAE [95 %]", f"against {compared}")
    configured = f" (as configured: form {cells[0].form}, loss {cells[0].loss})" if of == "adapter" else ""
    caption = f"{what}{configured}, {split}; MAE in {_UNIT}; MLflow run {run}"
    return table(headers, [cell.cells for cell in cells], caption)


def prediction_section(oof: pd.DataFrame | None, titles: Mapping[str, str], shown: bool) -> Section:
    """Show predicted against actual popularity, and the largest misses.

    Args:
        oof: Out-of-fold predictions: `pid`, `predicted`, `actual`; None before training.
        titles: Title by pid of at least the largest misses; untrusted.
        shown: Whether the configuration allows titles of single posts.
    """
    title = "Predicted against actual"
    if oof is None or oof.empty:
        return Section("predictions", title, missing=NOT_TRAINED)
    misses = largest_misses(oof, MISSES).to_dict("records")
    rows: list[list[Cell]] = [
        [m["pid"], *([short(titles.get(m["pid"], ""))] if shown else []), m["predicted"], m["actual"],
         m["predicted"] - m["actual"]]
        for m in misses
    ]  # fmt: skip
    headers = ["pid", *(["title"] if shown else []), "predicted", "actual", "predicted − actual"]
    picture = drawn(
        figures.predicted_against_actual(oof["predicted"], oof["actual"]),
        "Density of predicted against actual popularity.",
        "Out-of-fold: no post was predicted by a model that saw its user.",
    )
    return Section(
        "predictions",
        title,
        (
            picture,
            table(("actual popularity", "n", "MAE", "bias"), _errors_by_interval(oof), f"Error by popularity, {_UNIT}"),
            table(headers, rows, f"The {len(rows)} largest misses, {_UNIT}"),
        ),
    )


def _errors_by_interval(oof: pd.DataFrame) -> list[list[Cell]]:
    actual, predicted = (oof[name].to_numpy(np.float64) for name in ("actual", "predicted"))
    return [
        [interval_label(int(row["low"] or 0)), int(row["n"] or 0), row["mae"], row["bias"]]
        for row in by_interval(actual, predicted)
    ]


def calibration_section(oof: pd.DataFrame | None) -> Section:
    """Show mean predicted against mean actual popularity by bin.

    Args:
        oof: Out-of-fold predictions: `uid`, `predicted`, `actual`; None before training.
    """
    if oof is None or oof.empty:
        return Section("calibration", "Calibration", missing=NOT_TRAINED)
    bins = calibration(oof["predicted"], oof["actual"], oof["uid"])
    picture = drawn(
        figures.calibration(bins),
        "Mean actual against mean predicted popularity in bins of equally many posts; the table holds the numbers.",
        "Below the dashed line the model promises too much.",
    )
    columns = ["n", "mean_predicted", "mean_actual", "low", "high"]
    rows: list[list[Cell]] = [
        [int(n), float(guess), Interval(float(mean), float(low), float(high), 0.95)]
        for n, guess, mean, low, high in bins[columns].to_numpy()
    ]
    headers = ("n", f"mean predicted, {_UNIT}", f"mean actual, {_UNIT} [95 %]")
    return Section("calibration", "Calibration", (picture, table(headers, rows, "By bin of the prediction")))


def importance_section(shares: pd.Series | None, group_of: Mapping[str, str]) -> Section:
    """Show which features, and which groups of them, the booster used.

    Args:
        shares: Importance by feature, any unit, summing to anything; None before training.
        group_of: Feature to feature group; a feature that is not in it counts as its own group.
    """
    title = "Feature importance"
    if shares is None or shares.empty or not shares.sum():
        return Section("importance", title, missing=NOT_TRAINED)
    percent = 100 * shares / shares.sum()
    groups = percent.groupby([group_of.get(str(name), str(name)) for name in percent.index]).sum()
    blocks: list[Block] = [
        drawn(
            figures.importance(groups, "share of the total gain, %"),
            "Importance of each feature group in percent of the total gain.",
            "By feature group. Gain: how much splits on the feature lowered the training loss; it says what the model "
            "used, not what the feature is worth. That is what leaving groups out measures.",
        ),
        drawn(
            figures.importance(percent.nlargest(MOST_IMPORTANT), "share of the total gain, %"),
            "Importance of the most important single features in percent of the total gain.",
            f"The {min(MOST_IMPORTANT, len(percent))} most important of {len(percent)} columns that the booster sees.",
        ),
    ]
    return Section("importance", title, tuple(blocks))


def test_scores(predictions: pd.DataFrame, truth: Truth, train_median: float, draws: tuple[int, int]) -> list[Score]:
    """Score predictions of test posts against the truth of generated posts.

    Args:
        predictions: `pid`, `uid`, `predicted`, `seen`.
        truth: The labels.
        train_median: What the median baseline predicts.
        draws: Resamples and seed of the bootstrap over users.

    Returns:
        The model on all posts, on those of seen and of unseen users, and the median baseline.
    """
    known = predictions[predictions["pid"].isin(list(truth.labels))]
    segments = {"all": known, "seen users": known[known["seen"]], "unseen users": known[~known["seen"]]}
    rows = []
    for segment, part in segments.items():
        if part.empty:
            continue
        actual = part["pid"].map(dict(truth.labels)).to_numpy(np.float64)
        users = pd.factorize(part["uid"])[0].astype(np.int64)
        bootstrap = Bootstrap(users, *draws)
        made = {
            "model": part["predicted"].to_numpy(np.float64),
            "median of the labels": np.full(len(part), train_median),
        }
        for what, guess in made.items():
            scores = bootstrap.scores(actual, guess)
            rows.append(Score("test", what, segment, len(part), scores["src"], scores["mae"], scores["bias"]))
    return sorted(rows, key=lambda row: row.what != "model")


def truth_section(rows: Sequence[Score], truth: Truth) -> Section:
    """Show the model's scores on generated test posts beside the oracle's.

    Args:
        rows: As of `test_scores`.
        truth: With the oracle's scores.
    """
    title = "Test posts against the truth"
    if not rows:
        return Section("truth", title, missing="No predictions yet. `smp score` makes this section.")
    oracle = Score("test", "oracle", "all", len(truth.labels), truth.oracle_src, truth.oracle_mae, None)
    model = rows[0]
    assert isinstance(model.src, Interval)
    share = model.src.value / truth.oracle_src
    return Section(
        "truth",
        title,
        (
            table(_SCORE_HEADERS, [oracle.cells, *(row.cells for row in rows)], _SCORE_CAPTION),
            Note(
                "These posts were generated, so their labels are known. The oracle predicts the expectation given what "
                f"the files show; hidden user effects are noise to it. The model reaches {share:.0%} of its SRC."
            ),
        ),
    )
