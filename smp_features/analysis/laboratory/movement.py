"""How far the adapter moved each modality's vectors, beyond what its ratios alone do, and what that is worth.

All of it out of fold: a row's adapter has seen neither the row nor its user. Rows go through in blocks, so that only
sums and a few numbers per row are held beside the vectors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smp_features.analysis.laboratory.ridge import Moments, fit_ridge
from smp_features.config import TrainingConfig
from smp_features.metrics import Bootstrap, percentile_interval, src, weighted_mean, weighted_src
from smp_features.model.adapter_weights import Adapters, Floats
from smp_features.model.blocks import BLOCK
from smp_features.model.inputs import Columns, Inputs
from smp_features.training.adapter import Epoch
from smp_features.training.nested import Division, Nest

LEAST_ROWS = 10
"""Rows with a vector below which nothing is said about a modality."""

_RAW, _ADAPTED = "raw", "adapted"


def measure(
    rows: Columns,
    inputs: Inputs,
    adapters_of: Callable[[Division], Adapters],
    epochs: Callable[[Sequence[str]], Epoch],
    config: TrainingConfig,
    folds: Sequence[Division],
    final: Division,
) -> list[dict[str, Any]]:
    """Measure every adapted vector column.

    A row's vector x, standardised, moves to f*; how far is 1 − cos(x, f*). The same adapters trained by the same recipe
    on the same labels dealt out anew say how far vectors move whatever the labels: the ratios and the initial weights
    move them too. The score of a column is that of a ridge regression on that vector alone, of users it has not seen;
    the ridge on adapted vectors is fitted and judged as the booster is, without an adapter that saw a held-out label.

    Args:
        rows: Columns of the training set.
        inputs: Those a model sees.
        adapters_of: Gives a division's adapters, one per fold of its training rows, in order.
        epochs: Makes the source of adapter epochs for some vector columns.
        config: Of adapter, bootstrap and seed.
        folds: Identity-isolated divisions.
        final: All rows trained on; its adapters leave out a fold each.

    Returns:
        `[{modality, n, users, moved, shuffled, difference, src_raw, src_adapted, gain}]`: distances 0..2 and Spearman
        correlations with their intervals over users as `Interval.as_json` gives them. Columns with fewer than
        `LEAST_ROWS` rows are left out.
    """
    if not inputs.adapted:
        return []
    target, fold = rows["popularity"].astype(np.float64), rows["fold"].astype(np.int64)
    dealt = Nest(rows | {"popularity": shuffled(target, final.train, config.seed)}, epochs, config)
    dealt.prepare(inputs, [final])
    moved = distances(rows, inputs, adapters_of(final), final, fold)
    alone = distances(rows, inputs, dealt.adapters(inputs, final), final, fold)
    scores = linear_scores(rows, inputs, adapters_of, folds, target)
    found = []
    for column in inputs.adapted:
        known = np.isfinite(moved[column]) & np.isfinite(alone[column])
        if known.sum() < LEAST_ROWS:
            continue
        drawn = Bootstrap(rows["user"][known].astype(np.int64), config.bootstrap, config.seed)
        guesses = {name: scores[column, name][known] for name in (_RAW, _ADAPTED)}
        measured = _summary(drawn, target[known], moved[column][known], alone[column][known], guesses)
        found.append({"modality": column, "n": int(known.sum()), "users": drawn.users, **measured})
    return found


def shuffled(target: Floats, trained: NDArray[np.bool_], seed: int) -> Floats:
    """Return the labels (n,) with those of the rows trained on dealt out among these rows anew."""
    found = target.copy()
    found[trained] = np.random.default_rng(seed).permutation(target[trained])
    return found


def distances(
    rows: Columns, inputs: Inputs, adapters: Adapters | None, final: Division, fold: NDArray[np.int64]
) -> dict[str, Floats]:
    """Return 1 − cos(x, f*) by column, (n,): NaN for rows not trained on, without the vector, or without a direction.

    Args:
        rows: Columns of the training set.
        inputs: Which columns are adapted.
        adapters: Those of `final`, one per fold of its rows, in order.
        final: Whose rows.
        fold: (n,) the fold of each row.
    """
    assert adapters is not None, "there are columns to adapt"
    found = {column: np.full(len(fold), np.nan) for column in inputs.adapted}
    for number, name in enumerate(np.unique(fold[final.train])):
        for where in _blocks(final.train & (fold == name)):
            block = _take(rows, inputs, where)
            after, _ = adapters.forward(number, block)
            for column in inputs.adapted:
                before = adapters.standardised(number, column, block)
                lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after[column], axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):  # a missing vector is all zeros
                    found[column][where] = 1 - (before * after[column]).sum(axis=1) / lengths
    return found


def linear_scores(
    rows: Columns,
    inputs: Inputs,
    adapters_of: Callable[[Division], Adapters],
    folds: Sequence[Division],
    target: Floats,
) -> dict[tuple[str, str], Floats]:
    """Predict held-out rows by ridge regressions on one vector each.

    Args:
        rows: Columns of the training set.
        inputs: Which columns are adapted.
        adapters_of: Gives a division's adapters, one per fold of its training rows, in order.
        folds: Identity-isolated divisions.
        target: (n,) labels.

    Returns:
        (column, `raw` or `adapted`) to out-of-fold predictions (n,), NaN for rows never held out.
    """
    fold = rows["fold"].astype(np.int64)
    found = {(column, name): np.full(len(fold), np.nan) for column in inputs.adapted for name in (_RAW, _ADAPTED)}
    for division in folds:
        adapters = adapters_of(division)
        parts: dict[tuple[str, str], list[Moments]] = {key: [] for key in found}
        for number, name in enumerate(np.unique(fold[division.train])):
            sums: dict[tuple[str, str], Moments] = {}
            for where in _blocks(division.train & (fold == name)):
                block = _take(rows, inputs, where)
                adapted, _ = adapters.forward(number, block)
                for key, vectors in _both(block, adapted):
                    there = block[f"has_{key[0]}"].astype(bool)
                    part = Moments.of(vectors[there], target[where][there])
                    sums[key] = sums[key] + part if key in sums else part
            for key, total in sums.items():
                parts[key].append(total)
        models = {key: _model(total) for key, total in parts.items()}
        for where in _blocks(division.held_out):
            block = _take(rows, inputs, where)
            adapted, _ = adapters.mean_forward(block)
            for key, vectors in _both(block, adapted):
                weights, intercept = models[key]
                found[key][where] = vectors @ weights + intercept
    return found


def _model(parts: Sequence[Moments]) -> tuple[Floats, float]:
    """Fit; where a column is missing from almost every row, there is nothing to predict by."""
    if sum(part.count > 0 for part in parts) < 2:
        return np.zeros(len(parts[0].sums) - 1), 0.0
    return fit_ridge(parts)


def _both(block: Columns, adapted: Mapping[str, Floats]) -> list[tuple[tuple[str, str], Floats]]:
    return [
        pair
        for column, vectors in adapted.items()
        for pair in (((column, _RAW), block[column].astype(np.float64)), ((column, _ADAPTED), vectors))
    ]


def _summary(
    drawn: Bootstrap, target: Floats, moved: Floats, alone: Floats, guesses: Mapping[str, Floats]
) -> dict[str, Any]:
    draws = drawn.distributions(
        {
            "moved": weighted_mean(moved),
            "shuffled": weighted_mean(alone),
            "src_raw": weighted_src(target, guesses[_RAW]),
            "src_adapted": weighted_src(target, guesses[_ADAPTED]),
        }
    )
    values = {
        "moved": float(moved.mean()),
        "shuffled": float(alone.mean()),
        "src_raw": src(target, guesses[_RAW]),
        "src_adapted": src(target, guesses[_ADAPTED]),
    }
    # Both sides were judged on the same resamples, so what they share cancels.
    for name, first, second in (("difference", "moved", "shuffled"), ("gain", "src_adapted", "src_raw")):
        draws[name] = draws[first] - draws[second]
        values[name] = values[first] - values[second]
    order = ("moved", "shuffled", "difference", "src_raw", "src_adapted", "gain")
    return {name: percentile_interval(values[name], draws[name], 0.95).as_json() for name in order}


def _blocks(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    where = np.flatnonzero(mask)
    return [where[start : start + BLOCK] for start in range(0, len(where), BLOCK)]


def _take(rows: Columns, inputs: Inputs, where: NDArray[np.int64]) -> Columns:
    return {name: rows[name][where] for column in inputs.adapted for name in (column, f"has_{column}")}
