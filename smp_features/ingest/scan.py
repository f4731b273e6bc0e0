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
from smp_features.lake.tables import canonical_json
from smp_features.runs import Phases
from smp_features.sources.smpd.files import ImageRoot, Split
from smp_features.sources.smpd.source import Refusal, Row, SmpdSource
from smp_features.sources.smpd.user_additional import COUNTS

logger = logging.getLogger(__name__)

BATCH_ROWS = 5_000
"""Rows in memory at a time; with two profile vectors each, about 30 MB."""

_TIME = pa.timestamp("us", tz="UTC")
_VECTOR = pa.list_(pa.float32())

POST_FILES = "posts"
REFUSED_FILES = "refused"
EXTERNAL_FILES = "external"

POST_SCHEMA = pa.schema(
    [
        ("pid", pa.string()),
        ("split", pa.string()),
        ("uid", pa.string()),
        ("event_ts", _TIME),
        ("title", pa.string()),
        ("title_key", pa.string()),
        ("tags", pa.string()),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("concept", pa.string()),
        ("media_type", pa.string()),
        ("path_alias", pa.string()),
        ("is_public", pa.bool_()),
        ("media_status", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("geo_accuracy", pa.int32()),
        ("image_path", pa.string()),
        ("image_size", pa.int64()),
        ("image_modified_at", _TIME),
        ("image_status", pa.string()),
        ("image_file", pa.string()),
        ("image_folder", pa.string()),
        ("source_row", pa.string()),
        ("popularity", pa.float64()),
        ("photo_count", pa.int64()),
        ("photo_first_at", _TIME),
        ("photo_first_taken", pa.string()),
        ("is_pro", pa.bool_()),
        ("can_buy_pro", pa.bool_()),
        ("timezone_offset_minutes", pa.int32()),
        ("timezone_name", pa.string()),
        ("description", pa.string()),
        ("description_vector", _VECTOR),
        ("location", pa.string()),
        ("location_vector", _VECTOR),
    ]
)
"""A staged post: its columns of `posts`, its label, its user's profile, and where its image file is."""

REFUSED_SCHEMA = pa.schema([(name, pa.string()) for name in ("source_row", "pid", "reason", "detail", "run")])
EXTERNAL_SCHEMA = pa.schema([("alias", pa.string()), *((name, pa.int64()) for name in COUNTS)])

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
        forms: Container of the user_data file, by split.
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
    forms: dict[str, str] = field(default_factory=dict)
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


def scan(source: SmpdSource, scratch: Path, run: str, phases: Phases, stage: Stage | None = None) -> ScanResult:
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
            found.forms[split] = source.user_data_form(split)
            root = source.image_root(split)
            for batch in _timed_batches(source.rows(split), phases):
                with phases("parse"):
                    posts, refusals = _sort_out(batch, split, found, ledger)
                with phases("stat"):
                    _look_at_images(posts, root, found, threads)
                with phases("stage"):
                    put(POST_FILES, posts, POST_SCHEMA)
                    put(REFUSED_FILES, [vars(refusal) | {"run": run} for refusal in refusals], REFUSED_SCHEMA)
        for profiles in _timed_batches(source.external_profiles(), phases):
            new = [row for row in profiles if ledger.is_new_alias(row["alias"])]
            found.quirks["external profiles of an alias met before"] += len(profiles) - len(new)
            found.external += len(new)
            put(EXTERNAL_FILES, new, EXTERNAL_SCHEMA)
        found.users, found.unseen_test_posts = ledger.users()
    found.quirks += source.quirks
    if not found.rows.total():
        raise SourceError(f"{source.folder} holds no posts: its files have no rows.")
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
    batch: Sequence[Row | Refusal], split: Split, found: ScanResult, ledger: _Ledger
) -> tuple[list[Row], list[Refusal]]:
    posts: list[Row] = []
    refusals: list[Refusal] = []
    for row in batch:
        refusal = row if isinstance(row, Refusal) else ledger.refuse_repeated(row)
        if refusal is not None:
            refusals.append(refusal)
        elif not isinstance(row, Refusal):
            posts.append(row)
    found.rows[split] += len(batch)
    found.posts[split] += len(posts)
    found.refused_by_split[split] += len(refusals)
    found.refused.update(refusal.reason for refusal in refusals)
    return posts, refusals


def _look_at_images(posts: Sequence[Row], root: ImageRoot, found: ScanResult, threads: ThreadPoolExecutor) -> None:
    files = look_up_all(root, [post["image_path"] for post in posts], threads)
    for post, file in zip(posts, files, strict=True):
        post["image_status"] = file.status
        post["image_file"] = file.path
        post["image_folder"] = str(root.folder)
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
            detail = "An identical row came before."
            return Refusal(post["source_row"], post["pid"], "duplicate_pid", detail)
        detail = "An earlier row says something else of this pid; the first one is kept."
        return Refusal(post["source_row"], post["pid"], "conflicting_pid", detail)

    def is_new_alias(self, alias: str) -> bool:
        """Whether an external profile is the first of its alias."""
        return bool(self._connection.execute("INSERT OR IGNORE INTO aliases VALUES (?)", (alias,)).rowcount)

    def users(self) -> tuple[int, int]:
        """Return the number of users, and of test posts by users without a train post."""
        query = "SELECT count(*), coalesce(sum(CASE WHEN train = 0 THEN test ELSE 0 END), 0) FROM users"
        users, unseen = self._connection.execute(query).fetchone()
        return int(users), int(unseen)


_NOT_CONTENT = frozenset({"source_row", "split", "popularity"})


def _content(post: Row) -> bytes:
    """Return a digest of what a row says of a post, wherever the row stands; labels are compared apart."""
    said = {name: value for name, value in post.items() if name not in _NOT_CONTENT}
    vectors = [said.pop(name) for name in ("description_vector", "location_vector")]
    digest = hashlib.blake2b(canonical_json(said).encode(), digest_size=16)
    for vector in vectors:
        digest.update(b"\0" if vector is None else np.ascontiguousarray(vector).tobytes())
    return digest.digest()
