"""When each of several adapters stops training: whose loss decides, and the weights it had at its best."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def stopping_rows(member: Mask, users: NDArray[np.int64], share: float, seed: int) -> Mask:
    """Choose the rows whose loss decides when an adapter stops: those of a hashed share of its own training users.

    Whom an adapter holds out depends on its own rows, the share and the seed, not on the adapters beside it.

    Args:
        member: (n, m) whether row n trains adapter m.
        users: (n,) user of each row.
        share: Share of an adapter's users, 0..1; at least one user where it is not zero.
        seed: Decides whom.

    Returns:
        (n, m), within `member`. All false for an adapter that would keep fewer than two rows to train on.
    """
    found = np.zeros_like(member)
    if not share:
        return found
    names, user = np.unique(users, return_inverse=True)
    hashes = [hashlib.sha256(f"stopping {seed} {name}".encode()).digest() for name in names]
    order = np.array(sorted(range(len(names)), key=lambda number: hashes[number]), dtype=np.int64)
    for number, mine in enumerate(member.T):
        own = order[np.bincount(user[mine], minlength=len(names))[order] > 0]
        chosen = np.zeros(len(names), dtype=bool)
        chosen[own[: max(1, round(share * len(own)))]] = True
        held_out = mine & chosen[user]
        if (mine & ~held_out).sum() >= 2:
            found[:, number] = held_out
    return found


class Best:
    """The best weights so far of every adapter, one stacked copy.

    Args:
        weights: Stacked weights, adapters along the first axis; read again whenever one became better.
        stoppable: (m,) which adapters have rows to be judged on. The others train to the end and keep what they end as.
        patience: Epochs without a lower loss after which an adapter has stopped: it may train on beside others, but
            keeps what it had.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], stoppable: Mask, patience: int) -> None:
        self._weights = weights
        self._kept = {name: tensor.detach().clone() for name, tensor in weights.items()} if stoppable.any() else {}
        self._stoppable = stoppable
        self._running = stoppable.copy()
        self._patience = patience
        self._lowest = np.full(len(stoppable), np.inf)
        self._epoch = 0
        self.epochs = np.zeros(len(stoppable), dtype=np.int64)

    @property
    def stopped(self) -> bool:
        """Whether no adapter has anything to gain from another epoch."""
        return bool((self._stoppable & ~self._running).all())

    def judge(self, losses: NDArray[np.float64]) -> None:
        """End an epoch: keep the weights of the running adapters whose loss (m,) is their lowest so far."""
        self._epoch += 1
        better = self._running & (losses < self._lowest)
        self._lowest[better] = losses[better]
        self.epochs[better | ~self._stoppable] = self._epoch
        self._running &= self._epoch - self.epochs < self._patience
        numbers = torch.from_numpy(np.flatnonzero(better))
        for name, kept in self._kept.items():
            kept[numbers] = self._weights[name].detach()[numbers]

    def weights(self) -> dict[str, torch.Tensor]:
        """Return each adapter's best weights; the present ones of adapters that were never judged."""
        judged = torch.from_numpy(np.flatnonzero(self.epochs * self._stoppable))
        found = {name: tensor.detach().clone() for name, tensor in self._weights.items()}
        for name, kept in self._kept.items():
            found[name][judged] = kept[judged]
        return found
