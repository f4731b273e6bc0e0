"""What an experiment scores beside its headline."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from smp_features.catalogue import Catalogue
from smp_features.config import Config, RegressorConfig, TrainingConfig
from smp_features.errors import StageError
from smp_features.model.inputs import Inputs
from smp_features.model.predictor import Predictor
from smp_features.training.experiment import _Work, run_experiment
from smp_features.training.figures import write_figures

N = 60


def work_of(times: np.ndarray, split: str) -> _Work:
    rows = {
        "row_id": np.arange(N), "user": np.arange(N), "fold": np.arange(N) % 5, "event_time": times,
        "popularity": np.arange(N) / 10, "event_hour": np.zeros(N),
    }  # fmt: skip
    config = Config(training=TrainingConfig(split=split))
    return _Work(rows, Inputs(("event_hour",), {}, {}), config, lambda columns: iter)


def test_posts_of_one_instant_have_no_scores_by_time(caplog):
    assert work_of(np.zeros(N), "identity").later == {}
    assert "no scores of split chronological: A split by time needs rows of at least two instants" in caplog.text
    with pytest.raises(StageError, match="at least two instants"):
        work_of(np.zeros(N), "chronological")


def rows_of(
    users: int = N, labels: np.ndarray | None = None, values: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "row_id": np.arange(N),
        "user": np.arange(N) % users,
        "fold": np.arange(N) % users % 4 - (np.arange(N) % users % 16 == 0),  # a few users are the gate
        "event_time": np.arange(N) * 86400.0,
        "label_known_at": np.arange(N) * 86400.0,
        "popularity": rng.normal(6, 2, N) if labels is None else labels,
        "event_hour": rng.normal(size=N) if values is None else values,
    }


def run(rows: dict[str, np.ndarray], members: tuple[str, ...] = ("lightgbm", "catboost", "metadata")):
    regressor = RegressorConfig(members=members, rounds=20, min_leaf_rows=2)
    config = Config(training=TrainingConfig(bootstrap=100, leave_out=(), regressor=regressor))
    return run_experiment(rows, Inputs(("event_hour",), {}, {}), config, Catalogue.of({}), lambda columns: iter, {})


def test_labels_that_are_all_equal_and_too_few_users_are_one_line():
    with pytest.raises(StageError, match="All labels of the training set are equal"):
        run(rows_of(labels=np.full(N, 5.0)))
    with pytest.raises(StageError, match="of 5 users outside the gate; at least 10 users are needed"):
        run(rows_of(users=5) | {"fold": np.arange(N) % 5 % 4})


@pytest.mark.parametrize("values", [np.ones(N), np.full(N, np.nan)], ids=["constant", "missing"])
def test_columns_that_say_nothing_make_a_model_that_predicts_the_mean(values, tmp_path):
    rows = rows_of(values=values)
    made = run(rows)
    trained = rows["fold"] >= 0
    mean = rows["popularity"][trained].mean()
    made.predictor.save(tmp_path / "model")
    again = Predictor.load(tmp_path / "model").predict(pd.DataFrame({"event_hour": [1.0, None]}))
    assert again == pytest.approx([mean, mean])
    assert made.gate["predicted"].to_numpy() == pytest.approx(mean)
    json.dumps(made.results, allow_nan=False)
    write_figures(made.results, made.out_of_fold, tmp_path / "figures")


def test_labels_that_are_equal_in_all_but_one_fold_are_learned_from():
    rows = rows_of()
    rows["popularity"] = np.where(rows["fold"] == 2, rows["popularity"], 5.0)
    assert np.isfinite(run(rows).out_of_fold["predicted"]).all()


def test_a_split_by_time_is_always_scored_beside_the_one_that_heads():
    times = np.arange(N) * 86400.0
    assert list(work_of(times, "identity").later) == ["chronological"]
    assert list(work_of(times, "random_optimistic").later) == ["chronological", "random_optimistic"]
