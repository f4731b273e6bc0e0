"""The regressor: a blend of boosters over encoded columns, as `training/regressor.py` fitted it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .adapter_weights import Floats, Rows
from .boosters import Booster, threads
from .encoders import Encoders, feature_names, matrix
from .inputs import Inputs


@dataclass(frozen=True)
class Member:
    """One booster of the blend.

    Attributes:
        name: Of `KINDS`.
        weight: Its share of the prediction, 0..1; all members' add up to 1.
        rounds: Boosting rounds, as early stopping decided.
        booster: The fitted booster.
    """

    name: str
    weight: float
    rounds: int
    booster: Booster


@dataclass(frozen=True)
class Regressor:
    """A fitted blend with what its columns are made by.

    Attributes:
        inputs: The columns of `post_features` that it sees.
        encoders: Fitted on its training rows.
        members: Those with a weight above zero; none where nothing could be learned.
        low: Least training label; predictions are clipped to it.
        high: Greatest training label.
        mean: Mean training label, which is predicted where there is no member.
    """

    inputs: Inputs
    encoders: Encoders
    members: tuple[Member, ...]
    low: float
    high: float
    mean: float

    def predict(
        self,
        rows: Rows,
        adapted: Mapping[str, NDArray[np.floating]] | None,
        score: Floats | None,
        most_threads: int | None = None,
    ) -> Floats:
        """Predict from columns and what the adapters made of them; (n,), clipped to the training labels' range."""
        features = matrix(self.inputs, self.encoders, rows, adapted, score)
        names = feature_names(self.inputs, self.encoders, score is not None)
        blended = np.full(len(features), 0.0 if self.members else self.mean)
        if len(features):
            for member in self.members:
                seen = columns_of(features, names, member.booster.names)
                blended += member.weight * member.booster.predict(seen, most_threads or threads(len(features)))
        return np.clip(blended, self.low, self.high)

    def importance(self) -> dict[str, float]:
        """Return each column's share of the gain, summing to 1: the members' shares, weighted as they are."""
        shares: dict[str, float] = {}
        for member in self.members:
            gains = member.booster.gains()
            for name, gain in zip(member.booster.names, gains / max(gains.sum(), 1e-12), strict=True):
                shares[name] = shares.get(name, 0.0) + member.weight * float(gain)
        return shares


def columns_of(features: Floats, names: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Return some columns of (n, f) features by name, in the order wanted; all of them in their order are no copy."""
    if list(wanted) == list(names):
        return features
    at = {name: place for place, name in enumerate(names)}
    return features[:, [at[name] for name in wanted]]
