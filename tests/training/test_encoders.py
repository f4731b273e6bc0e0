"""What is fitted in the fold: each encoding against an independent computation, and no row against its own label."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from smp_features.config import RegressorConfig
from smp_features.model import encoders
from smp_features.model.blocks import Selection
from smp_features.model.encoders import Encoders
from smp_features.model.inputs import Inputs, padded
from smp_features.training.encoders import fit_encoders, mean_labels

N = 60
WORDS = [" ".join(f"w{(row * step) % 9}" for step in range(row % 5)) for row in range(N)]
INPUTS = Inputs(("event_hour",), {}, {"category": ["a", "b", "c"]}, buckets={"tag_buckets": 9})
CONFIG = RegressorConfig(word_components=3, target_prior_rows=2.0)


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "event_hour": rng.normal(size=N),
        "category": rng.integers(-1, 2, N),
        "tag_buckets": padded([[int(word[1:]) for word in words.split()] for words in WORDS]),
    }


@pytest.fixture
def target(rows) -> np.ndarray:
    return 5.0 + rows["category"] + np.random.default_rng(1).normal(size=N)


FOLDS = np.arange(N) % 3


def fit(rows, target) -> tuple[Encoders, dict[str, np.ndarray]]:
    return fit_encoders(INPUTS, Selection.all(rows), target, FOLDS, CONFIG, 0)


def test_mean_labels_by_hand():
    found = mean_labels(np.array([0, 0, 2, -1]), np.array([1.0, 3.0, 9.0, 7.0]), 3, 2.0)
    # The overall mean is 5: (1 + 3 + 2 * 5) / 4, nothing but 5, (9 + 10) / 3, and last (7 + 10) / 3 for the missing.
    assert found == pytest.approx([3.5, 5.0, 19 / 3, 17 / 3])


def test_a_training_row_gets_the_mean_of_other_folds(rows, target):
    _, own = fit(rows, target)
    for row in (0, 17, 59):
        others = (FOLDS[row] != FOLDS) & (rows["category"] == rows["category"][row])
        overall = target[FOLDS[row] != FOLDS].mean()
        expected = (target[others].sum() + 2 * overall) / (others.sum() + 2)
        assert own["category"][row] == pytest.approx(expected)


def test_a_label_reaches_no_row_of_its_own_fold(rows, target):
    _, before = fit(rows, target)
    _, after = fit(rows, np.where(FOLDS == 1, target + 100, target))
    assert np.array_equal(before["category"][FOLDS == 1], after["category"][FOLDS == 1])
    assert not np.array_equal(before["category"][FOLDS != 1], after["category"][FOLDS != 1])


def test_words_are_sklearns_tf_idf_and_svd(rows, target):
    fitted, _ = fit(rows, target)
    made = encoders.matrix(INPUTS, fitted, rows, None, None)
    names = encoders.feature_names(INPUTS, fitted, False)
    made = made[:, [names.index(f"tag_buckets_svd_{number}") for number in range(3)]]
    weighted = TfidfVectorizer(token_pattern=r"\S+", vocabulary=[f"w{n}" for n in range(9)]).fit_transform(WORDS)
    expected = TruncatedSVD(3, algorithm="arpack").fit_transform(weighted)
    assert np.allclose(np.abs(made), np.abs(expected), atol=2e-3)
    assert (made[[not words for words in WORDS]] == 0).all()


def test_the_encoders_survive_as_arrays(rows, target):
    fitted, _ = fit(rows, target)
    arrays = fitted.arrays()
    again = Encoders.of_arrays({name: arrays[name] for name in sorted(arrays)}, list(arrays))
    before, after = (encoders.matrix(INPUTS, each, rows, None, None) for each in (fitted, again))
    assert np.array_equal(before, after)


def test_unseen_categories_and_no_words_still_encode(rows, target):
    fitted, _ = fit(rows, target)
    new = {"event_hour": np.zeros(2), "category": np.array([2, -1]), "tag_buckets": padded([None, []])}
    assert np.isfinite(encoders.matrix(INPUTS, fitted, new, None, None)).all()
