"""Writes a made-up SMPD folder whose popularity follows a written formula, with the truth beside it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

from smp_features.demo import formula
from smp_features.demo.pictures import image_bytes
from smp_features.demo.population import BROKEN_NAMES, Posts, draw
from smp_features.demo.smpd_writer import SmpdWriter
from smp_features.errors import UsageError

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 1  # raise when the same seed gives other bytes
CRAWL_DATE = "2019-06-01"  # of user_additional.txt: years after the posts, as in the real data
MIN_POSTS = 50  # fewer do not hold every quirk and a test half worth scoring
PROGRESS_EVERY = 100


@dataclass(frozen=True)
class GenerateSummary:
    """What was written.

    Attributes:
        posts: Number of posts, ``train`` and ``test`` together.
        train: Posts with a label.
        test: Later posts without one.
        users: Number of users.
        unseen_user_share: Share of test posts whose user has no train post.
        broken_images: Number of unusable image files by kind.
        oracle_src: Spearman correlation of the oracle with the test labels.
        oracle_mae: Mean absolute error of the oracle on the test labels, in units of log2(views + 1).
        out: The folder.
    """

    posts: int
    train: int
    test: int
    users: int
    unseen_user_share: float
    broken_images: dict[str, int]
    oracle_src: float
    oracle_mae: float
    out: Path


def generate(
    posts: int,
    out: Path,
    seed: int,
    user_data_form: Literal["records", "columns"] = "records",
    progress: Callable[[int, int], None] | None = None,
) -> GenerateSummary:
    """Write made-up posts as an SMPD folder, with truth.json and generated.json beside them.

    The folder appears under its name only when it is complete. The same arguments write the same bytes.

    Args:
        posts: Number of posts, train and test together, at least 50.
        out: Folder to create; it may exist if it is empty.
        seed: Decides everything that is drawn.
        user_data_form: Schema A (``records``) or schema B (``columns``) of the user_data files.
        progress: Called with (posts done, posts wanted) as pictures are written.

    Raises:
        UsageError: Fewer than 50 posts, a negative seed, an unknown form, or a folder that holds files or that
            cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = generate(60, Path(folder) / "posts", seed=1)
        >>> written.posts, written.train > written.test
        (60, True)
    """
    out = Path(out)
    _refuse_wrong_usage(posts, out, seed, user_data_form)
    users, drawn = draw(posts, seed)
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        writer = SmpdWriter(unfinished, users, drawn, seed)
        writer.write_metadata("train", user_data_form)
        writer.write_metadata("test", user_data_form)
        writer.write_profiles()
        _write_images(writer, drawn, seed, progress)
        summary = _summarise(drawn, out)
        _write_json(unfinished / "truth.json", _truth(drawn, summary))
        _write_json(unfinished / "generated.json", _description(posts, seed, user_data_form))
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise UsageError(
            f"The folder {out} cannot be written: {error.strerror or error}.", "Choose another one with --out."
        ) from error
    logger.info("generated posts=%d train=%d test=%d out=%s", posts, summary.train, summary.test, out)
    return summary


def _refuse_wrong_usage(posts: int, out: Path, seed: int, user_data_form: str) -> None:
    if posts < MIN_POSTS:
        raise UsageError(f"{posts} posts are too few to make a data set of; at least {MIN_POSTS} are needed.")
    if seed < 0:
        raise UsageError(f"The seed is {seed}; it must be zero or more.")
    if user_data_form not in ("records", "columns"):
        raise UsageError(f"Unknown user_data form '{user_data_form}'.", "Known: columns, records.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; a folder was expected.", "Choose another one with --out.")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"The folder {out} already holds files.", "Choose another one with --out, or empty it.")


def _write_images(writer: SmpdWriter, posts: Posts, seed: int, progress: Callable[[int, int], None] | None) -> None:
    for row in range(len(posts)):
        content = image_bytes(posts, row, seed)
        path = writer.image_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        if progress is not None and ((row + 1) % PROGRESS_EVERY == 0 or row + 1 == len(posts)):
            progress(row + 1, len(posts))


def _summarise(posts: Posts, out: Path) -> GenerateSummary:
    labels = formula.score_of(posts.views[posts.train :])
    expected = posts.expectation[posts.train :]
    unseen = ~np.isin(posts.user[posts.train :], posts.user[: posts.train])
    return GenerateSummary(
        posts=len(posts),
        train=posts.train,
        test=len(labels),
        users=len(np.unique(posts.user)),
        unseen_user_share=float(unseen.mean()),
        broken_images={name: int((posts.image_fault == fault).sum()) for fault, name in BROKEN_NAMES.items()},
        oracle_src=round(float(spearmanr(expected, labels).statistic), 4),
        oracle_mae=round(float(np.abs(expected - labels).mean()), 4),
        out=out,
    )


def _truth(posts: Posts, summary: GenerateSummary) -> dict[str, object]:
    shares = {name: round(share, 4) for name, share in posts.effects.variance_shares().items()}
    scores = formula.score_of(posts.views[posts.train :])
    return {
        "coefficients": formula.coefficients() | {"measured_variance_shares": shares},
        "oracle": {"src": summary.oracle_src, "mae": summary.oracle_mae},
        "test_labels": {str(pid): float(score) for pid, score in zip(posts.pid[posts.train :], scores, strict=True)},
    }


def _description(posts: int, seed: int, user_data_form: str) -> dict[str, object]:
    return {
        "posts": posts,
        "seed": seed,
        "user_data": user_data_form,
        "crawl_date": CRAWL_DATE,
        "generator_version": GENERATOR_VERSION,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
