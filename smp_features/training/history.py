"""A user's history in validation: held-out rows know no held-out label, and some training users no history at all.

`features/history.py` makes the columns as they were known at each post. That is right for training rows and for what
is served; a validation that holds labels back has to hold them back from the later posts' history too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smp_features.catalogue import BUILT_IN
from smp_features.model.adapter_weights import Floats, Rows

HISTORY = tuple(feature.name for feature in BUILT_IN if feature.group == "history")
COUNT, MEAN, LAST = (f"history_known_label_{what}" for what in ("count", "mean", "last"))


def users_without_history(users: NDArray[np.generic], share: float, seed: int) -> NDArray[np.bool_]:
    """Return whether each row's user is drawn to have no history, (n,).

    Args:
        users: (n,) users.
        share: Expected share of users drawn, 0..1.
        seed: Of the draw.
    """
    known, user = np.unique(users, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).random(len(known)) < share)[user])


def known_labels(rows: Rows, train: NDArray[np.bool_], where: NDArray[np.int64]) -> dict[str, Floats]:
    """Return the columns of the group `history` that labels decide, from training labels alone.

    Args:
        rows: `user`, `event_time`, `popularity` and `label_known_at` (Unix seconds) of all rows.
        train: (n,) rows whose labels may be known.
        where: (m,) positions of the rows to describe, none of them in `train`.

    Returns:
        Column to (m,): how many training labels of the same user were known at the row's `event_time` (known then
        counts), their mean, and the label of the latest post among them; mean and latest are NaN without any.
    """
    source = np.flatnonzero(train)
    known = _frame(rows, source, {"label": "popularity", "posted": "event_time", "at": "label_known_at"})
    known = known.sort_values(["at", "posted", "row"], kind="stable")
    by_user = known.groupby("user", sort=False)
    known["count"] = by_user.cumcount() + 1.0
    known["sum"] = by_user["label"].cumsum()
    newest = known["posted"] == by_user["posted"].cummax()
    known["last"] = known["label"].where(newest)
    known["last"] = known.groupby("user", sort=False)["last"].ffill()
    asked = _frame(rows, where, {"at": "event_time"}).sort_values("at", kind="stable")
    found = pd.merge_asof(asked, known.drop(columns="row"), on="at", by="user").sort_values("row", kind="stable")
    count = found["count"].fillna(0.0).to_numpy(np.float64)
    with np.errstate(invalid="ignore"):
        mean = found["sum"].to_numpy(np.float64) / count
    return {COUNT: count, MEAN: mean, LAST: found["last"].to_numpy(np.float64)}


def _frame(rows: Rows, where: NDArray[np.int64], columns: Mapping[str, str]) -> pd.DataFrame:
    taken = {name: rows[column][where].astype(np.float64) for name, column in columns.items()}
    return pd.DataFrame({"user": rows["user"][where].astype(np.int64), **taken, "row": np.arange(len(where))})
