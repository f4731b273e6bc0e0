"""The promotion rule: when a new version of the model takes the champion's place.

It becomes champion when there is none. Else both versions' predictions of the gate rows that both recorded are compared
by a paired bootstrap over users at `registry.gate.confidence`: the new one is promoted if its MAE is lower or its SRC
higher by more than noise (the interval excludes zero) and the other of the two is not worse by more than noise. With
fewer than `LEAST_GATE_USERS` users in common nothing is decided by numbers, and it stays a challenger; `smp promote` is
there for people.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from smp_features.config import Config
from smp_features.metrics import Bootstrap

LEAST_GATE_USERS = 30


def is_better(new: pd.DataFrame, champion: pd.DataFrame, config: Config) -> tuple[bool, str]:
    """Apply the rule; return whether the new version beats the champion, and why.

    Args:
        new: The new version's predictions of gate rows: `row_id`, `user`, `actual`, `predicted`.
        champion: Likewise the champion's.
        config: Its `registry.gate`, and the bootstrap's draws and seed.
    """
    shared = new.merge(champion[["row_id", "actual", "predicted"]], on=["row_id", "actual"], suffixes=("", "_champion"))
    users = shared["user"].nunique()
    if users < LEAST_GATE_USERS:
        return False, f"only {users} gate users in common, {LEAST_GATE_USERS} are needed to compare"
    drawn = Bootstrap(shared["user"].to_numpy(np.int64), config.training.bootstrap, config.training.seed)
    change = drawn.differences(
        shared["actual"].to_numpy(np.float64),
        shared["predicted"].to_numpy(np.float64),
        shared["predicted_champion"].to_numpy(np.float64),
        config.registry.gate.confidence,
    )
    return judge(change["src"].low, change["src"].high, change["mae"].low, change["mae"].high, users)


def judge(src_low: float, src_high: float, mae_low: float, mae_high: float, users: int) -> tuple[bool, str]:
    """Return whether the intervals of new minus champion make the new one better, and the reason in words."""
    basis = f"on {users} gate users"
    change = f"SRC {src_low:+.3f}..{src_high:+.3f}, MAE {mae_low:+.3f}..{mae_high:+.3f} {basis}"
    gains = src_low > 0 or mae_high < 0
    losses = src_high < 0 or mae_low > 0
    if gains and not losses:
        return True, f"better than the champion by more than noise ({change})"
    return False, f"not better than the champion by more than noise ({change})"
