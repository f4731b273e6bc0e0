"""Who is trained on and who is held out: every split, as pure functions; folds and gate also as Spark expressions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F

from smp_features.errors import StageError

GATE_FOLD = -1
"""The fold of gate users, who are never trained on."""

GATE_SALT = "gate"
"""Fixed for ever and independent of every seed: gate users stay the same, and a larger share only adds to them."""

DIGITS = 15
"""Hex digits of the SHA-256 that are used: 60 bits, the most whole digits that fit a signed 64-bit integer."""

HASHES = 16**DIGITS

ROLLING_YEARS = 3
HELD_OUT_SHARE = 0.2
"""Share of rows held out by the splits with one held-out side."""

UNSEEN_SHARE = 0.64
"""Share of the challenge's test posts whose users have no training post, by published counts of its users."""


@dataclass(frozen=True)
class Split:
    """One division of rows into a training and a held-out side.

    Attributes:
        train: (n,) bool, rows to train on.
        held_out: (n,) bool, rows to score. Rows in neither were dropped.
        seen: (n,) bool, the row's user has rows to train on.
    """

    train: np.ndarray
    held_out: np.ndarray
    seen: np.ndarray


def identity_folds(uids: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the identity-isolated fold of each row: no user is in two folds.

    A user's fold is a hash of the uid and the seed, so it does not depend on which other rows there are.

    Args:
        uids: (n,) users.
        folds: Number of folds.
        seed: Decides the folds.

    Returns:
        (n,) int32 in 0..folds-1.

    Example:
        >>> folds = identity_folds(["ann", "bob", "ann", "cyd"], folds=3, seed=0)
        >>> bool(folds[0] == folds[2])
        True
    """
    return _by_user(uids, lambda uid: _hashed(_fold_salt(seed), uid) % folds).astype(np.int32)


def gate_users(uids: Sequence[str], share: float) -> np.ndarray:
    """Return whether each row's user is reserved for the gate.

    Args:
        uids: (n,) users.
        share: Expected share of users reserved, 0..1.

    Returns:
        (n,) bool.
    """
    bound = _gate_bound(share)
    return _by_user(uids, lambda uid: _hashed(GATE_SALT, uid) < bound).astype(bool)


def fold_column(uid: str, folds: int, seed: int, gate_share: float) -> Column:
    """Return the fold of a uid column: `identity_folds`, and GATE_FOLD where `gate_users` says so."""
    gated = _hash_column(GATE_SALT, uid) < F.lit(_gate_bound(gate_share))
    fold = _hash_column(_fold_salt(seed), uid) % F.lit(folds)
    return F.when(gated, F.lit(GATE_FOLD)).otherwise(fold).cast("int")


def chronological(event_ts: Sequence[object], uids: Sequence[str], share: float = HELD_OUT_SHARE) -> Split:
    """Hold out the latest rows; rows of the same instant are on one side.

    Args:
        event_ts: (n,) times, of any kind that numpy sorts.
        uids: (n,) users, to tell seen from unseen ones.
        share: Share held out; the cut between two instants that comes closest is taken, the later one of two equally
            close.

    Raises:
        StageError: All rows are of one instant.

    Example:
        >>> split = chronological([3, 1, 2, 4], ["ann", "ann", "bob", "cyd"], share=0.25)
        >>> split.held_out.tolist(), split.seen.tolist()
        ([False, False, False, True], [True, True, True, False])
    """
    times = np.asarray(event_ts)
    instants, first = np.unique(np.sort(times), return_index=True)
    if len(instants) < 2:
        raise StageError(
            "A split by time needs rows of at least two instants.", "Use --set training.split=identity instead."
        )
    held = (len(times) - first[1:]) / len(times)
    distance = np.abs(held - share)
    cut = instants[1:][len(distance) - 1 - int(np.argmin(distance[::-1]))]
    return _split(times < cut, times >= cut, uids)


def later_unseen(
    event_ts: Sequence[object],
    uids: Sequence[str],
    seed: int,
    share: float = HELD_OUT_SHARE,
    unseen_share: float = UNSEEN_SHARE,
) -> Split:
    """Hold out the latest rows and drop training users until most held-out rows come from unseen users, as in the test.

    Users with rows on both sides lose their training rows one after the other, in the order of a seeded hash, until
    at least `unseen_share` of the held-out rows is from users without any.

    Args and errors are those of `chronological`; `seed` decides who is dropped.
    """
    by_time = chronological(event_ts, uids, share)
    users = pd.Series(np.asarray(uids, dtype=object))
    wanted = unseen_share * by_time.held_out.sum()
    unseen = int((by_time.held_out & ~by_time.seen).sum())
    held_rows = users[by_time.held_out & by_time.seen].value_counts()
    dropped: list[str] = []
    for user in sorted(held_rows.index, key=lambda uid: _hashed(f"drop:{seed}", uid)):
        if unseen >= wanted:
            break
        dropped.append(user)
        unseen += int(held_rows[user])
    return _split(by_time.train & ~users.isin(dropped).to_numpy(), by_time.held_out, uids)


def rolling(times: np.ndarray, uids: Sequence[str], years: int = ROLLING_YEARS) -> dict[int, Split]:
    """Hold out each of the last calendar years in turn, and train on the years before it.

    Args:
        times: (n,) Unix seconds, float64; years are those of UTC.
        uids: (n,) users.
        years: How many years are held out.

    Raises:
        StageError: The rows are of too few years.
    """
    year = pd.DatetimeIndex(pd.to_datetime(times, unit="s")).year.to_numpy()
    known = np.unique(year)
    if len(known) <= years:
        raise StageError(
            f"Rolling validation over {years} years needs rows of {years + 1}, and there are {len(known)}.",
            "Use the split chronological instead.",
        )
    return {int(held): _split(year < held, year == held, uids) for held in known[-years:]}


def random_optimistic(pids: Sequence[str], uids: Sequence[str], seed: int, share: float = HELD_OUT_SHARE) -> Split:
    """Hold out rows at random, users on both sides: it flatters every model, hence its name.

    Args:
        pids: (n,) posts; a post's side is a hash of its pid and the seed.
        uids: (n,) users.
        seed: Decides the sides.
        share: Expected share held out.
    """
    bound = int(share * HASHES)
    held_out = np.fromiter((_hashed(f"random:{seed}", pid) < bound for pid in pids), dtype=bool, count=len(pids))
    return _split(~held_out, held_out, uids)


def _split(train: np.ndarray, held_out: np.ndarray, uids: Sequence[str]) -> Split:
    users = pd.Series(np.asarray(uids, dtype=object))
    return Split(train, held_out, users.isin(users[train].unique()).to_numpy())


def _by_user(uids: Sequence[str], decide: Callable[[str], int]) -> np.ndarray:
    row_user, users = pd.factorize(np.asarray(uids, dtype=object))
    return np.array([decide(user) for user in users], dtype=np.int64)[row_user]


def _fold_salt(seed: int) -> str:
    return f"fold:{seed}"


def _gate_bound(share: float) -> int:
    return int(share * HASHES)


def _hashed(salt: str, value: str) -> int:
    return int(hashlib.sha256(f"{salt}|{value}".encode()).hexdigest()[:DIGITS], 16)


def _hash_column(salt: str, column: str) -> Column:
    digest = F.sha2(F.concat(F.lit(f"{salt}|"), F.col(column)), 256)
    return F.conv(F.substring(digest, 1, DIGITS), 16, 10).cast("bigint")
