"""What an experiment scores beside its headline."""

from __future__ import annotations

import numpy as np
import pytest

from smp_features.config import Config, TrainingConfig
from smp_features.errors import StageError
from smp_features.model.inputs import Inputs
from smp_features.training.experiment import _Work

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


def test_a_split_by_time_is_always_scored_beside_the_one_that_heads():
    times = np.arange(N) * 86400.0
    assert list(work_of(times, "identity").later) == ["chronological"]
    assert list(work_of(times, "random_optimistic").later) == ["chronological", "random_optimistic"]
