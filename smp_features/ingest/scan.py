"""The one pass over a source that checks everything, counts it, and stages it, before any table is touched."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smp_features.errors import ReconciliationError, SourceError
from smp_features.ingest.image_paths import LOOKUP_THREADS, look_up_all
from smp_features.ingest.staged import (
    CONTENT,
    EXTERNAL_SCHEMA,
    POST_SCHEMA,
    REFUSED_SCHEMA,
    check_columns,
    complete,
    refusal,
)
from smp_features.lake.tables import canonical_json
from smp_features.runs import Phases
from smp_features.sources.base import ImageRoot, Refusal, Row, RowSource, Split

logger = logging.getLogger(__name__)

BATCH_ROWS = 5_000
"""Rows in memory at a time; with two profile vectors each, about 30 MB."""

POST_FILES = "posts"
REFUSED_FILES = "refused"
EXTERNAL_FILES = "external"

SEEN_ALIAS = "external profiles of an alias met before"

Stage = Callable[[str, Sequence[Mapping[str, Any]], pa.Schema], None]


@dataclass
class ScanResult:
    """What one pass over a source found.

    Attributes:
        rows: Source rows by split.
        posts: Rows that became posts, by split.
        refused: Refused rows by reason.
        refused_by_split: Refused rows by split.
        images: Posts by what the look-up said of their image file.
        quirks: What else was met, by name.
        details: What the source says of a split, by split; null for nothing.
        users: Distinct users.
        unseen_test_posts: Test posts whose user has no train post.
        external: External profiles.
    """

    rows: Counter[str] = field(default_factory=Counter)
    posts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    refused_by_split: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    quirks: Counter[str] = field(default_factory=Counter)
    details: dict[str, str | None] = field(default_factory=dict)
    users: int = 0
    unseen_test_posts: int = 0
    external: int = 0

    @property
    def refused_share(self) -> float:
        """Refused rows over all rows."""
        return self.refused.total() / max(self.rows.total(), 1)

    def reconcile(self) -> None:
        """Check that every source row became a post or a refusal.

        Raises:
            ReconciliationError: One did not.
        """
        for split, rows in self.rows.items():
            posts, refused = self.posts[split], self.refused_by_split[split]
            if rows != posts + refused:
                raise ReconciliationError(
                    f"ingest: {rows:,} source rows of {split} became {posts:,} posts and {refused:,} refusals.",
                    "No table was changed. Please report this with the counts.",
                )


def scan(source: RowSource, scratch: Path, run: str, phases: Phases, stage: Stage | None = None) -> ScanResult:
    """Read a source to its end: check, count, look up its image files, and stage what is good.

    Args:
        source: The source.
        scratch: A folder for temporary files.
        run: The run that is noted with refusals.
        phases: Gets the seconds of `parse`, `stat` and `stage`.
        stage: Called with the name of a set of files, rows and their schema; None stages nothing.

    Raises:
        SourceError: Misaligned, truncated or malformed files, or no posts at all.
        ReconciliationError: A row was lost on the way.
    """
    found = ScanResult()
    put = stage or (lambda name, rows, schema: None)
    with _Ledger(scratch / "ledger.sqlite") as ledger, ThreadPoolExecutor(LOOKUP_THREADS) as threads:
        for split in source.splits:
            found.details[split] = source.details(split)
            root = source.image_root(split)
            for batch in _timed_batches(source.rows(split), phases):
                with phases("parse"):
                    posts, refusals = _sort_out(batch, source.place, split, found, ledger)
                with phases("stat"):
                    _look_at_images(posts, root, found, threads)
                with phases("stage"):
                    _stage_posts(put, posts, source.place)
                    put(REFUSED_FILES, [vars(refusal) | {"run": run} for refusal in refusals], REFUSED_SCHEMA)
        for profiles in _timed_batches(source.external_profiles(), phases):
            new = [row for row in profiles if ledger.is_new_alias(row["alias"])]
            found.quirks[SEEN_ALIAS] += len(profiles) - len(new)
            found.external += len(new)
            put(EXTERNAL_FILES, new, EXTERNAL_SCHEMA)
        found.users, found.unseen_test_posts = ledger.users()
    found.quirks += source.quirks
    if not found.rows.total():
        raise SourceError(f"{source.place} holds no posts: its files have no rows.")
    found.reconcile()
    return found


def _timed_batches(rows: Iterator[Any], phases: Phases) -> Iterator[list[Any]]:
    while True:
        with phases("parse"):
            batch = list(islice(rows, BATCH_ROWS))
        if not batch:
            return
        yield batch


def _sort_out(
    batch: Sequence[Row | Refusal], place: str, split: Split, found: ScanResult, ledger: _Ledger
) -> tuple[list[Row], list[Refusal]]:
    posts: list[Row] = []
    refusals: list[Refusal] = []
    for number, stated in enumerate(batch, found.rows[split] + 1):
        row = stated
        if not isinstance(row, Refusal):
            check_columns(row, place)
            row = complete(row, split, number)
        if not isinstance(row, Refusal):
            row = ledger.refuse_repeated(row) or row
        if isinstance(row, Refusal):
            refusals.append(row)
        else:
            posts.append(row)
    found.rows[split] += len(batch)
    found.posts[split] += len(posts)
    found.refused_by_split[split] += len(refusals)
    found.refused.update(refusal.reason for refusal in refusals)
    return posts, refusals


def _stage_posts(put: Stage, posts: Sequence[Row], place: str) -> None:
    try:
        put(POST_FILES, posts, POST_SCHEMA)
    except (ValueError, TypeError, OverflowError):
        for column in POST_SCHEMA:
            try:
                pa.array([post.get(column.name) for post in posts], column.type)
            except (ValueError, TypeError, OverflowError) as error:
                raise SourceError(
                    f"{place}: {column.name} of a post is not {column.type} ({type(error).__name__}).",
                    "A source gives every column the type that lake/specs.py states, or null.",
                ) from None
        raise


def _look_at_images(
    posts: Sequence[Row], root: ImageRoot | None, found: ScanResult, threads: ThreadPoolExecutor
) -> None:
    files = look_up_all(root, [post.get("image_path") for post in posts], threads)
    for post, file in zip(posts, files, strict=True):
        post["image_status"] = file.status
        post["image_file"] = file.path
        post["image_folder"] = None if root is None else str(root.folder)
        post["image_size"] = file.size
        post["image_modified_at"] = file.modified_at
    found.images.update(file.status for file in files)


class _Ledger:
    """What was met before: pids with what was said of them, users, aliases. On disk, so that memory stays flat."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute("PRAGMA cache_size=-65536")  # KiB
        self._connection.executescript(
            "CREATE TABLE pids (pid TEXT PRIMARY KEY, content BLOB, label REAL) WITHOUT ROWID;"
            "CREATE TABLE users (uid TEXT PRIMARY KEY, train INTEGER, test INTEGER) WITHOUT ROWID;"
            "CREATE TABLE aliases (alias TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def __enter__(self) -> _Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def refuse_repeated(self, post: Row) -> Refusal | None:
        """Keep the first post of a pid, in source order, train before test; refuse the others."""
        content, label = _content(post), post["popularity"]
        added = self._connection.execute(
            "INSERT OR IGNORE INTO pids VALUES (?, ?, ?)", (post["pid"], content, label)
        ).rowcount
        if added:
            self._connection.execute(
                "INSERT INTO users VALUES (?, ?, ?) "
                "ON CONFLICT (uid) DO UPDATE SET train = train + excluded.train, test = test + excluded.test",
                (post["uid"], int(post["split"] == "train"), int(post["split"] == "test")),
            )
            return None
        kept, kept_label = self._connection.execute(
            "SELECT content, label FROM pids WHERE pid = ?", (post["pid"],)
        ).fetchone()
        if kept == content and (label is None or kept_label is None or label == kept_label):
            return refusal(post["source_row"], post["pid"], "duplicate_pid")
        return refusal(post["source_row"], post["pid"], "conflicting_pid")

    def is_new_alias(self, alias: str) -> bool:
        """Whether an external profile is the first of its alias."""
        return bool(self._connection.execute("INSERT OR IGNORE INTO aliases VALUES (?)", (alias,)).rowcount)

    def users(self) -> tuple[int, int]:
        """Return the number of users, and of test posts by users without a train post."""
        query = "SELECT count(*), coalesce(sum(CASE WHEN train = 0 THEN test ELSE 0 END), 0) FROM users"
        users, unseen = self._connection.execute(query).fetchone()
        return int(users), int(unseen)


def _content(post: Row) -> bytes:
    """Return a digest of what a row says of a post, wherever the row stands; labels are compared apart."""
    said = {name: post.get(name) for name in CONTENT}
    vectors = [name for name, value in said.items() if isinstance(value, np.ndarray | list | tuple)]
    arrays = {name: np.ascontiguousarray(said.pop(name), dtype=np.float32) for name in vectors}
    digest = hashlib.blake2b(
        canonical_json({name: _plain(value) for name, value in said.items()}).encode(), digest_size=16
    )
    for name, array in arrays.items():
        digest.update(name.encode() + array.tobytes())
    return digest.digest()


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)
