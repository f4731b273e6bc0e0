"""The figures that go with a run: what the booster used, and where it was right. The report draws the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smp_features.figures import importance, predicted_against_actual

LARGEST = 25  # features shown


def write_figures(results: Mapping[str, Any], out_of_fold: pd.DataFrame, folder: Path) -> None:
    """Write `importance.png` and `predicted_vs_actual.png`.

    Args:
        results: As `experiment.run_experiment` returns them.
        out_of_fold: Columns `actual` and `predicted`.
        folder: Created.
    """
    folder.mkdir(parents=True)
    gains = pd.Series({each["feature"]: each["gain"] for each in results["importance"]}, dtype=float)
    shares = 100 * gains / (gains.sum() or 1.0)
    drawn = {
        "importance.png": importance(shares.nlargest(LARGEST), "share of the booster's total gain, %"),
        "predicted_vs_actual.png": predicted_against_actual(out_of_fold["predicted"], out_of_fold["actual"]),
    }
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=110)
