"""The adapter's forward pass in numpy: what serves predictions, and what makes the booster's features in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save_file

Floats = NDArray[np.float64]
Rows = Mapping[str, NDArray[np.generic]]
"""Columns of the training set by name: numbers (n,), category codes (n,), vectors (n, d), `has_…` (n,)."""

Form = Literal["mixture", "bottleneck"]


@dataclass(frozen=True)
class Adapters:
    """Adapters that were trained side by side on different rows of one training set.

    Each has one branch per vector column and a head over the concatenated, adapted vectors. With x the standardised
    vector (zero where it is missing) and r the branch's ratio, the adapted vector is

    - `mixture` (DSN): r · relu(W x + b) + (1 − r) · x
    - `bottleneck` (CLIP-Adapter): r · relu(U relu(D x)) + (1 − r) · x, without bias, D: d → d/4.

    The head is linear and gives a standardised label; or it gives one logit per popularity interval, beside the fixed
    logarithm of how frequent the interval is, and the score is the mean of the intervals' centres weighted by softmax.

    Attributes:
        form: Which of the two.
        ratios: Vector column to r, 0..1, in the order of the branches.
        weights: Name to float32 array whose first axis counts the adapters: `<column>.mean` (m, d) and `.scale` (m,);
            `<column>.weight` (m, d, d) and `.bias` (m, d), or `<column>.down` (m, d, h) and `.up` (m, h, d), applied
            from the right; `head.weight` (m, sum of d), `head.bias`, `target.mean`, `target.scale` (m,), or with
            intervals `head.weight` (m, sum of d, c), `head.bias`, `target.prior`, `target.centres` (m, c), c intervals.
    """

    form: Form
    ratios: Mapping[str, float]
    weights: Mapping[str, NDArray[np.float32]]

    @property
    def count(self) -> int:
        """Number of adapters."""
        return len(self.weights["head.bias"])

    def pick(self, numbers: list[int]) -> Adapters:
        """Return some of the adapters."""
        return Adapters(self.form, self.ratios, {name: array[numbers] for name, array in self.weights.items()})

    def save(self, path: Path) -> None:
        """Write the weights as safetensors; form and ratios are described elsewhere."""
        save_file({name: np.ascontiguousarray(value) for name, value in self.weights.items()}, path)

    @classmethod
    def load(cls, content: bytes, form: Form, ratios: Mapping[str, float]) -> Adapters:
        """Return the adapters of a file that `save` wrote."""
        return cls(form, dict(ratios), load(content))

    def forward(self, number: int, rows: Rows) -> tuple[dict[str, Floats], Floats]:
        """Apply one adapter.

        Computed in float64, so that the result does not depend on how rows were batched beyond 1e-12.

        Args:
            number: Which adapter.
            rows: Its vector columns and their `has_…` columns.

        Returns:
            Adapted vectors by column, (n, d) each, and the score (n,) in units of the label.
        """
        adapted = {column: self._branch(number, column, rows) for column in self.ratios}
        joined = np.concatenate(list(adapted.values()), axis=1)
        raw = joined @ self._weight("head.weight", number) + self._weight("head.bias", number)
        if "target.centres" not in self.weights:
            return adapted, raw * self._weight("target.scale", number) + self._weight("target.mean", number)
        logits = raw + self._weight("target.prior", number)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return adapted, shares @ self._weight("target.centres", number) / shares.sum(axis=1)

    def mean_forward(self, rows: Rows) -> tuple[dict[str, Floats], Floats]:
        """Apply all adapters; return the means of their adapted vectors and of their scores."""
        vectors, score = self.forward(0, rows)
        for number in range(1, self.count):
            more, one = self.forward(number, rows)
            score = score + one
            for column in vectors:
                vectors[column] = vectors[column] + more[column]
        return {column: total / self.count for column, total in vectors.items()}, score / self.count

    def standardised(self, number: int, column: str, rows: Rows) -> Floats:
        """Return the vectors x as one adapter sees them, (n, d): centred and scaled, zero where they are missing."""
        there = rows[f"has_{column}"].astype(np.float64)[:, None]
        centred = rows[column].astype(np.float64) - self._weight(f"{column}.mean", number)
        return np.asarray(there * centred / self._weight(f"{column}.scale", number))

    def _branch(self, number: int, column: str, rows: Rows) -> Floats:
        there = rows[f"has_{column}"].astype(np.float64)[:, None]
        x = self.standardised(number, column, rows)
        if self.form == "mixture":
            learned = x @ self._weight(f"{column}.weight", number) + self._weight(f"{column}.bias", number)
        else:
            inner = np.maximum(x @ self._weight(f"{column}.down", number), 0)
            learned = inner @ self._weight(f"{column}.up", number)
        ratio = self.ratios[column]
        return np.asarray(there * (ratio * np.maximum(learned, 0) + (1 - ratio) * x))

    def _weight(self, name: str, number: int) -> Floats:
        return self.weights[name][number].astype(np.float64)
