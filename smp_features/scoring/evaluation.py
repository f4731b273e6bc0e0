"""Scores a submission against labels, over all posts and by what is known of them; starts no Spark."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smp_features.config import Config, TrainingConfig
from smp_features.errors import SourceError, UsageError
from smp_features.metrics import Bootstrap, Floats, Integers, finite, interval_names, points
from smp_features.scoring.score_files import counted, read_scores
from smp_features.sources.base import Outline, RowSource, open_source
from smp_features.summaries import interval_label

ALL = "all"
NO_CATEGORY = "(none)"
LEAST_USERS = 2
"""Users that a bootstrap needs: of one user, every resample is the same."""

_DRAWS = TrainingConfig()  # as many resamples, of the same seed, as behind the scores of training


@dataclass(frozen=True)
class Evaluation:
    """How good a submission is.

    Attributes:
        rows: One per segment, `all` first. `segment` is `all`, `users`, `interval` or `category`, `which` says which
            one; `n`: posts; `src`: Spearman correlation, null if undefined; `mae` and `bias` (mean of predicted minus
            actual), in log2(views + 1). With known users also `users` (distinct ones) and the ends of the 95 %
            intervals, `src_low`, `src_high`, `mae_low`, `mae_high`, null for a single user.
        extra: Predictions of posts that have no label.
    """

    rows: list[dict[str, Any]]
    extra: int


def evaluate(predictions: Path, labels: Path, posts: RowSource | None = None) -> Evaluation:
    """Score a submission against labels.

    Args:
        predictions: As of `read_scores`; so are `labels`.
        labels: The posts to score.
        posts: A source that holds the labelled posts. With it users are known: scores get intervals by a
            bootstrap over users, and segments are scored too. A user is `seen` who has a train post that is not among
            the labelled ones (which are the train posts themselves where a model is tried on held-out ones).

    Raises:
        SourceError: A file cannot be read, or labelled posts have no prediction or are not in the source.
    """
    predicted, actual = read_scores(predictions), read_scores(labels)
    missing = [pid for pid in actual if pid not in predicted]
    if missing:
        raise SourceError(
            f"{predictions} lacks {counted(missing)} of the {len(actual):,} in {labels}.",
            "Every labelled post needs a prediction.",
        )
    if len(actual) < 2:
        raise SourceError(f"{labels} holds {len(actual)} posts; at least two are needed.")
    wanted = np.array(list(actual.values()))
    given = np.array([predicted[pid] for pid in actual])
    extra = len(predicted) - len(actual)
    if posts is None:
        return Evaluation([_scored(ALL, ALL, wanted, given)], extra)
    known, train_users = _read_posts(posts, set(actual))
    absent = [pid for pid in actual if pid not in known]
    if absent:
        raise SourceError(
            f"{posts.place} lacks {counted(absent)} of {labels}.", "Name the folder that the labels belong to."
        )
    described = [known[pid] for pid in actual]
    users = np.unique([post.uid for post in described], return_inverse=True)[1]
    rows = [
        _scored(segment, which, wanted[inside], given[inside], users[inside])
        for segment, which, inside in _segments(described, train_users, wanted)
    ]
    return Evaluation(rows, extra)


@contextmanager
def posts_at(config: Config, path: str | None) -> Iterator[RowSource | None]:
    """Open the configured kind of source at a path; None opens none.

    Raises:
        UsageError: Only Spark reads that kind.
    """
    if path is None:
        yield None
        return
    named = config.model_copy(update={"source": config.source.model_copy(update={"path": path, "limit": None})})
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(named, Path(scratch))
        if not isinstance(source, RowSource):
            raise UsageError(f"A source of kind {config.source.kind} is read by Spark, and an evaluation starts none.")
        yield source


def _segments(
    posts: Sequence[Outline], train_users: set[str], actual: Floats
) -> Iterator[tuple[str, str, np.ndarray[Any, Any]]]:
    """Yield segment, which one, and its rows (n,), leaving out empty ones."""
    seen = np.array([post.uid in train_users for post in posts])
    lows = interval_names(actual)
    categories = np.array([post.category or NO_CATEGORY for post in posts])
    found = [
        (ALL, ALL, np.ones(len(posts), bool)),
        ("users", "seen", seen),
        ("users", "unseen", ~seen),
        *(("interval", interval_label(int(low)), lows == low) for low in np.unique(lows)),
        *(("category", str(name), categories == name) for name in np.unique(categories)),
    ]
    yield from (each for each in found if each[2].any())


def _scored(
    segment: str, which: str, actual: Floats, predicted: Floats, users: Integers | None = None
) -> dict[str, Any]:
    scores = points(actual, predicted)
    row: dict[str, Any] = {"segment": segment, "which": which, "n": scores["n"]}
    if users is None:
        return row | {name: finite(scores[name]) for name in ("src", "mae", "bias")}
    drawn = Bootstrap(users, _DRAWS.bootstrap, _DRAWS.seed)
    row["users"] = drawn.users
    intervals = drawn.scores(actual, predicted) if drawn.users >= LEAST_USERS else {}
    for name in ("src", "mae"):
        row[name] = finite(scores[name])
        for end in ("low", "high"):
            row[f"{name}_{end}"] = finite(getattr(intervals[name], end)) if name in intervals else None
    return row | {"bias": scores["bias"]}


def _read_posts(source: RowSource, wanted: set[str]) -> tuple[dict[str, Outline], set[str]]:
    """Return the wanted posts of all splits by pid, and the users of the train posts that are not wanted."""
    found: dict[str, Outline] = {}
    train_users = set()
    for split in source.splits:
        for post in source.outlines(split):
            if post.pid in wanted:
                found[post.pid] = post
            elif split == "train":
                train_users.add(post.uid)
    return found, train_users
