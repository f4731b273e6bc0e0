"""Trains the CLIP-adapter by torch: every fold's adapter at once, in one pass over the rows per epoch."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smp_features.config import AdapterConfig
from smp_features.errors import StageError
from smp_features.metrics import TAIL_FROM, interval_names
from smp_features.model.adapter_weights import Adapters
from smp_features.model.blocks import BLOCK
from smp_features.training.stopping import Best, stopping_rows

logger = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[np.generic]]
"""Some rows of one epoch: `position` (n,) in the order of `member`, and the vector and `has_…` columns."""

Epoch = Callable[[], Iterator[Arrays]]
"""Gives all rows once, in chunks."""

BOTTLENECK = 4  # CLIP-Adapter reduces d to d/4
MAX_THREADS = 8
CLASSES = TAIL_FROM + 1
"""Popularity intervals told apart: of unit width from zero, the last one open."""

NARROW = 512  # below this many components in all, threads wait for each other longer than they compute


@dataclass(frozen=True)
class Curve:
    """How training went.

    Attributes:
        train: Mean loss on training rows by epoch, over all adapters, in squared standard deviations of the label; in
            nats for `intervals`.
        stopping: The same after each epoch on the users who decide when an adapter stops, first averaged by adapter;
            NaN without such users.
        held_out: The same on the rows that are no adapter's business; NaN without such rows. Shown, never chosen by.
        kept: The epoch, from one, whose weights each adapter kept.
    """

    train: tuple[float, ...]
    stopping: tuple[float, ...]
    held_out: tuple[float, ...]
    kept: tuple[int, ...]


def train_adapters(
    epoch: Epoch,
    member: NDArray[np.bool_],
    scored: NDArray[np.bool_],
    target: NDArray[np.float64],
    users: NDArray[np.int64],
    dims: Mapping[str, int],
    images: Collection[str],
    config: AdapterConfig,
    seed: int,
) -> tuple[Adapters, Curve]:
    """Train several adapters that share architecture, initial weights and order of rows, but not their rows.

    Their weights are stacked along a first axis. Adam works element by element and the losses are summed, so each
    adapter becomes what it would alone.

    Each holds out some of its own users and keeps the weights at which its loss on them was lowest. It is not fitted
    again with them: that would double the work, and nothing would have judged the weights that come out.

    Args:
        epoch: Gives the rows, anew for every epoch.
        member: (n, m) whether row n trains adapter m.
        scored: (n,) rows that may appear in the held-out curve (not the gate's).
        target: (n,) the label.
        users: (n,) user of each row.
        dims: Vector column to its width.
        images: Those of the columns that take the ratio of the image branch.
        config: Form, ratios, loss, optimiser and stopping.
        seed: Of initial weights, shuffles and who decides when to stop.

    Raises:
        StageError: An adapter has fewer than two training rows, or its loss is no longer finite.
    """
    if not dims:
        raise StageError("An adapter needs at least one vector column, and the chosen feature groups have none.")
    if (member.sum(axis=0) < 2).any():
        raise StageError(
            "A fold leaves fewer than two rows to train on.", "Label more posts, or set training.folds lower."
        )
    with _threads(1 if sum(dims.values()) < NARROW else min(MAX_THREADS, os.cpu_count() or 1)):
        inner = stopping_rows(member, users, config.stopping_share, seed)
        fitted = member & ~inner
        fixed = _standardisation(epoch, fitted, dims) | _label_weights(fitted, target, config.loss)
        learned = _initial_weights(dims, member.shape[1], config, seed)
        ratio = ratios(dims, images, config)
        best, curve = _fit(epoch, fitted, inner, scored & ~member.T, target, fixed, learned, ratio, config, seed)
    weights = {name: tensor.numpy() for name, tensor in {**fixed, **best}.items()}
    return Adapters(config.form, ratio, weights), curve


def classes(target: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each label, (n,) in 0..CLASSES-1: its popularity interval."""
    return np.maximum(interval_names(target), 0)


def ratios(columns: Iterable[str], images: Collection[str], config: AdapterConfig) -> dict[str, float]:
    """Return each branch's share of the learned vector."""
    return {column: config.image_ratio if column in images else config.text_ratio for column in columns}


def forward(
    weights: Mapping[str, torch.Tensor], ratio: Mapping[str, float], form: str, vectors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Apply all adapters.

    Args:
        weights: As in `Adapters.weights`.
        ratio: Column to r.
        form: `mixture` or `bottleneck`.
        vectors: Column to (n, d), and `has_<column>` to (n,).

    Returns:
        Adapted vectors by column (m, n, d), and what the head gives: standardised scores (m, n), or logits of the
        intervals (m, n, CLASSES).
    """
    adapted = {}
    for column, r in ratio.items():
        there = vectors[f"has_{column}"][None, :, None]
        centred = vectors[column][None] - weights[f"{column}.mean"][:, None]
        x = there * centred / weights[f"{column}.scale"][:, None, None]
        if form == "mixture":
            learned = torch.bmm(x, weights[f"{column}.weight"]) + weights[f"{column}.bias"][:, None]
        else:
            learned = torch.bmm(torch.relu(torch.bmm(x, weights[f"{column}.down"])), weights[f"{column}.up"])
        adapted[column] = there * (r * torch.relu(learned) + (1 - r) * x)
    joined = torch.cat(list(adapted.values()), dim=2)
    if "target.prior" in weights:
        offset = (weights["head.bias"] + weights["target.prior"])[:, None]
        return adapted, torch.bmm(joined, weights["head.weight"]) + offset
    return adapted, torch.einsum("mnd,md->mn", joined, weights["head.weight"]) + weights["head.bias"][:, None]


def _standardisation(epoch: Epoch, member: NDArray[np.bool_], dims: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Centre each vector and divide it by its root mean square per component, over an adapter's own training rows."""
    counts = {column: np.zeros(member.shape[1]) for column in dims}
    sums = {column: np.zeros((member.shape[1], width)) for column, width in dims.items()}
    squares = {column: np.zeros(member.shape[1]) for column in dims}
    for chunk in epoch():
        mine = member[chunk["position"]]
        for start in range(0, len(mine), BLOCK):
            block = slice(start, start + BLOCK)
            for column in dims:
                used = (mine[block] * chunk[f"has_{column}"][block, None]).T.astype(np.float64)
                vectors = chunk[column][block].astype(np.float64)
                counts[column] += used.sum(axis=1)
                sums[column] += used @ vectors
                squares[column] += used @ (vectors**2).sum(axis=1)
    fixed: dict[str, torch.Tensor] = {}
    for column, width in dims.items():
        count = np.maximum(counts[column], 1)
        mean = sums[column] / count[:, None]
        variance = np.maximum(squares[column] / count - (mean**2).sum(axis=1), 0) / width
        fixed[f"{column}.mean"] = _tensor(mean)
        fixed[f"{column}.scale"] = _tensor(np.where(variance > 1e-12, np.sqrt(variance), 1.0))
    return fixed


def _label_weights(member: NDArray[np.bool_], target: NDArray[np.float64], loss: str) -> dict[str, torch.Tensor]:
    """Describe the labels of an adapter's own training rows: mean and spread, or each interval's centre and share.

    An interval's centre is its mean label; its middle where it has no row. Every interval counts one row more than it
    has, so that no loss is infinite. An adapter that has learned nothing yet gives about the mean label either way.
    """
    if loss == "intervals":
        named = classes(target)
        counts = np.stack([np.bincount(named[rows], minlength=CLASSES) for rows in member.T])
        sums = np.stack([np.bincount(named[rows], target[rows], CLASSES) for rows in member.T])
        middles = np.arange(CLASSES) + 0.5
        return {
            "target.centres": _tensor(np.where(counts > 0, sums / np.maximum(counts, 1), middles)),
            "target.prior": _tensor(np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))),
        }
    means = np.array([target[rows].mean() for rows in member.T])
    spreads = np.array([target[rows].std() for rows in member.T])
    return {"target.mean": _tensor(means), "target.scale": _tensor(np.where(spreads > 0, spreads, 1.0))}


def _initial_weights(dims: Mapping[str, int], count: int, config: AdapterConfig, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, fan_in: int) -> torch.Tensor:
        bound = 1 / math.sqrt(fan_in)
        return (torch.rand(*shape, generator=generator) * 2 - 1) * bound

    one: dict[str, torch.Tensor] = {}
    for column, width in dims.items():
        if config.form == "mixture":
            one[f"{column}.weight"] = uniform(width, width, fan_in=width)
            one[f"{column}.bias"] = torch.zeros(width)
        else:
            narrow = max(1, width // BOTTLENECK)
            one[f"{column}.down"] = uniform(width, narrow, fan_in=width)
            one[f"{column}.up"] = uniform(narrow, width, fan_in=narrow)
    outputs = (CLASSES,) if config.loss == "intervals" else ()
    one["head.weight"] = torch.zeros(sum(dims.values()), *outputs)
    one["head.bias"] = torch.zeros(outputs)
    return {name: torch.stack([tensor] * count).requires_grad_() for name, tensor in one.items()}


def _fit(
    epoch: Epoch,
    fitted: NDArray[np.bool_],
    inner: NDArray[np.bool_],
    outer: NDArray[np.bool_],
    target: NDArray[np.float64],
    fixed: dict[str, torch.Tensor],
    learned: dict[str, torch.Tensor],
    ratio: Mapping[str, float],
    config: AdapterConfig,
    seed: int,
) -> tuple[dict[str, torch.Tensor], Curve]:
    """Train on the rows `fitted` (n, m), stop by the rows `inner` (n, m), and watch the rows `outer` (m, n)."""
    optimiser = torch.optim.Adam(learned.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rng = np.random.default_rng(seed)
    wanted = _wanted(target, config.loss)
    passes = max(config.epochs, -(-config.min_steps * config.batch // max(len(target), 1)))
    best = Best(learned, inner.any(axis=0), config.patience)
    curves: list[tuple[float, float, float]] = []

    def errors(chunk: Arrays, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return each adapter's loss on some rows of a chunk, (m, rows)."""
        vectors = {name: _tensor(chunk[name][rows]) for name in chunk if name != "position"}
        _, output = forward({**fixed, **learned}, ratio, config.form, vectors)
        return _errors(config.loss, fixed, output, wanted[chunk["position"][rows]])

    while len(curves) < passes and not best.stopped:
        totals, counts = np.zeros(2), np.zeros(2)
        for chunk in epoch():
            order = rng.permutation(len(chunk["position"]))
            for start in range(0, len(order), config.batch):
                rows = order[start : start + config.batch]
                position = np.asarray(chunk["position"][rows], dtype=np.int64)
                error = errors(chunk, rows)
                mine = _tensor(fitted[position].T)
                loss = ((error * mine).sum(dim=1) / mine.sum(dim=1).clamp(min=1)).sum()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                others = _tensor(outer[:, position])
                seen = error.detach()
                totals += [float((seen * mine).sum()), float((seen * others).sum())]
                counts += [float(mine.sum()), float(others.sum())]
        with np.errstate(invalid="ignore"):
            train_loss, held_out_loss = totals / counts
        if not np.isfinite(train_loss):
            raise StageError("The adapter's loss is no longer finite.", "Set training.adapter.learning_rate lower.")
        losses = _stopping_losses(epoch, inner, errors, config.batch)
        best.judge(losses)
        judged = losses[np.isfinite(losses)]
        curves.append((float(train_loss), float(judged.mean()) if len(judged) else math.nan, float(held_out_loss)))
    train, stopping, held_out = zip(*curves, strict=True)
    return best.weights(), Curve(train, stopping, held_out, tuple(best.epochs.tolist()))


def _stopping_losses(
    epoch: Epoch, inner: NDArray[np.bool_], errors: Callable[[Arrays, NDArray[np.int64]], torch.Tensor], batch: int
) -> NDArray[np.float64]:
    """Return each adapter's mean loss on its rows of `inner` (n, m); NaN where it has none."""
    totals, counts = np.zeros(inner.shape[1]), inner.sum(axis=0)
    judging = inner.any(axis=1)
    if not judging.any():
        return np.full(inner.shape[1], np.nan)
    with torch.no_grad():
        for chunk in epoch():
            where = np.flatnonzero(judging[chunk["position"]])
            for start in range(0, len(where), batch):
                rows = where[start : start + batch]
                mine = inner[chunk["position"][rows]].T
                totals += (errors(chunk, rows).numpy() * mine).sum(axis=1, dtype=np.float64)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def _wanted(target: NDArray[np.float64], loss: str) -> torch.Tensor:
    """Return what the head should give, (n,): the label, or its class."""
    return torch.from_numpy(classes(target) if loss == "intervals" else target.astype(np.float32))


def _errors(kind: str, fixed: Mapping[str, torch.Tensor], output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the loss of each adapter on each row, (m, n)."""
    if kind == "intervals":
        return -torch.log_softmax(output, dim=2)[:, torch.arange(len(wanted)), wanted]
    function = torch.nn.functional.mse_loss if kind == "mse" else torch.nn.functional.huber_loss
    label = (wanted[None] - fixed["target.mean"][:, None]) / fixed["target.scale"][:, None]
    return function(output, label, reduction="none")


def _tensor(values: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
