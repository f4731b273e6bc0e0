"""Trains the CLIP-adapter by torch: every fold's adapter at once, in one pass over the rows per epoch."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smp_features.config import AdapterConfig
from smp_features.errors import StageError
from smp_features.training.adapter_weights import Adapters

logger = logging.getLogger(__name__)

Chunk = Mapping[str, NDArray[np.generic]]
"""Some rows of one epoch: `position` (n,) in the order of `member`, and the vector and `has_…` columns."""

Epoch = Callable[[], Iterator[Chunk]]
"""Gives all rows once, in chunks."""

IMAGE_BRANCH = "image_embedding"
"""The column that takes `image_ratio`; every other vector is text and takes `text_ratio`."""

BOTTLENECK = 4  # CLIP-Adapter reduces d to d/4
MAX_THREADS = 8
NARROW = 512  # below this many components in all, threads wait for each other longer than they compute


@dataclass(frozen=True)
class Curve:
    """How training went.

    Attributes:
        train: Mean loss on training rows by epoch, over all adapters, in squared standard deviations of the label.
        held_out: The same on the rows that an adapter does not train on; NaN without such rows. Shown, never chosen by.
    """

    train: tuple[float, ...]
    held_out: tuple[float, ...]


def train_adapters(
    epoch: Epoch,
    member: NDArray[np.bool_],
    scored: NDArray[np.bool_],
    target: NDArray[np.float64],
    dims: Mapping[str, int],
    config: AdapterConfig,
    seed: int,
) -> tuple[Adapters, Curve]:
    """Train several adapters that share architecture, initial weights and order of rows, but not their rows.

    Their weights are stacked along a first axis. Adam works element by element and the losses are summed, so each
    adapter becomes what it would alone.

    Args:
        epoch: Gives the rows, anew for every epoch.
        member: (n, m) whether row n trains adapter m.
        scored: (n,) rows that may appear in the held-out curve (not the gate's).
        target: (n,) the label.
        dims: Vector column to its width.
        config: Form, ratios, loss and optimiser.
        seed: Of initial weights and shuffles.

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
        fixed = _standardisation(epoch, member, target, dims)
        learned = _initial_weights(dims, member.shape[1], config, seed)
        curve = _fit(epoch, member, scored, target, fixed, learned, config, seed)
    weights = {name: tensor.detach().numpy() for name, tensor in {**fixed, **learned}.items()}
    return Adapters(config.form, ratios(dims, config), weights), curve


def ratios(dims: Mapping[str, int], config: AdapterConfig) -> dict[str, float]:
    """Return each branch's share of the learned vector."""
    return {column: config.image_ratio if column == IMAGE_BRANCH else config.text_ratio for column in dims}


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
        Adapted vectors by column (m, n, d), and standardised scores (m, n).
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
    return adapted, torch.einsum("mnd,md->mn", joined, weights["head.weight"]) + weights["head.bias"][:, None]


def _standardisation(
    epoch: Epoch, member: NDArray[np.bool_], target: NDArray[np.float64], dims: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    """Centre each vector and divide it by its root mean square per component, over an adapter's own training rows."""
    counts = {column: np.zeros(member.shape[1]) for column in dims}
    sums = {column: np.zeros((member.shape[1], width)) for column, width in dims.items()}
    squares = {column: np.zeros(member.shape[1]) for column in dims}
    for chunk in epoch():
        mine = member[chunk["position"]]
        for column in dims:
            used = (mine * chunk[f"has_{column}"][:, None]).T.astype(np.float64)
            vectors = chunk[column].astype(np.float64)
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
    means = np.array([target[rows].mean() for rows in member.T])
    spreads = np.array([target[rows].std() for rows in member.T])
    return fixed | {
        "target.mean": _tensor(means),
        "target.scale": _tensor(np.where(spreads > 0, spreads, 1.0)),
    }


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
    one["head.weight"] = torch.zeros(sum(dims.values()))
    one["head.bias"] = torch.tensor(0.0)
    return {name: torch.stack([tensor] * count).requires_grad_() for name, tensor in one.items()}


def _fit(
    epoch: Epoch,
    member: NDArray[np.bool_],
    scored: NDArray[np.bool_],
    target: NDArray[np.float64],
    fixed: dict[str, torch.Tensor],
    learned: dict[str, torch.Tensor],
    config: AdapterConfig,
    seed: int,
) -> Curve:
    columns = [name.removesuffix(".scale") for name in fixed if name.endswith(".scale") and name != "target.scale"]
    ratio = ratios(dict.fromkeys(columns, 0), config)
    optimiser = torch.optim.Adam(learned.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(target.astype(np.float32))
    passes = max(config.epochs, -(-config.min_steps * config.batch // max(len(target), 1)))
    train_curve, held_out_curve = [], []
    for _ in range(passes):
        totals, counts = np.zeros(2), np.zeros(2)
        for chunk in epoch():
            order = rng.permutation(len(chunk["position"]))
            for start in range(0, len(order), config.batch):
                rows = order[start : start + config.batch]
                position = np.asarray(chunk["position"][rows], dtype=np.int64)
                vectors = {name: _tensor(chunk[name][rows]) for name in chunk if name != "position"}
                _, score = forward({**fixed, **learned}, ratio, config.form, vectors)
                wanted = (labels[position][None] - fixed["target.mean"][:, None]) / fixed["target.scale"][:, None]
                error = _loss(config.loss, score, wanted)
                mine = _tensor(member[position].T)
                loss = ((error * mine).sum(dim=1) / mine.sum(dim=1).clamp(min=1)).sum()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                others = (1 - mine) * _tensor(scored[position])[None]
                seen = error.detach()
                totals += [float((seen * mine).sum()), float((seen * others).sum())]
                counts += [float(mine.sum()), float(others.sum())]
        with np.errstate(invalid="ignore"):
            train_loss, held_out_loss = totals / counts
        if not np.isfinite(train_loss):
            raise StageError("The adapter's loss is no longer finite.", "Set training.adapter.learning_rate lower.")
        train_curve.append(float(train_loss))
        held_out_curve.append(float(held_out_loss))
    return Curve(tuple(train_curve), tuple(held_out_curve))


def _loss(kind: str, score: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    function = torch.nn.functional.mse_loss if kind == "mse" else torch.nn.functional.huber_loss
    return function(score, wanted, reduction="none")


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
