"""The figures that go with a run: what the booster used, and where it was right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

LARGEST = 25  # features shown


def write_figures(results: Mapping[str, Any], out_of_fold: pd.DataFrame, folder: Path) -> None:
    """Write `importance.png` and `predicted_vs_actual.png`.

    Args:
        results: As `experiment.run_experiment` returns them.
        out_of_fold: Columns `actual` and `predicted`.
        folder: Created.
    """
    folder.mkdir(parents=True)
    importance(results["importance"]).savefig(folder / "importance.png", dpi=110)
    predicted_against_actual(out_of_fold).savefig(folder / "predicted_vs_actual.png", dpi=110)


def importance(gains: list[dict[str, Any]]) -> Figure:
    """Draw the features with the largest share of the gain, the largest on top."""
    total = sum(each["gain"] for each in gains) or 1.0
    shown = gains[:LARGEST][::-1]
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    axes.barh([each["feature"] for each in shown], [100 * each["gain"] / total for each in shown])
    axes.set_xlabel("share of total gain, %")
    axes.set_title("What the booster used")
    return figure


def predicted_against_actual(out_of_fold: pd.DataFrame) -> Figure:
    """Draw out-of-fold predictions over labels, with the diagonal of a perfect model."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.hexbin(out_of_fold["actual"], out_of_fold["predicted"], gridsize=40, mincnt=1, cmap="viridis")
    ends = [out_of_fold["actual"].min(), out_of_fold["actual"].max()]
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.set_xlabel("popularity, log2(views + 1)")
    axes.set_ylabel("predicted, out of fold")
    axes.set_title(f"{len(out_of_fold):,} posts, identity-isolated folds")
    return figure
