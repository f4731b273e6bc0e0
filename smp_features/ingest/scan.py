"""The one pass over a source that checks everything, counts it, and stages it, before any table is touched."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smp_features.errors import ReconciliationError, SourceError
from smp_features.ingest.columns import column_of
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
from smp_features.runs import Phases
from smp_features.sources.base import ImageRoot, Refusal, Row, RowSource, Split, repaired

logger = logging.getLogger(__name__)

BATCH_ROWS = 5_000
"""Rows in memory at a time; with two profile vectors each, about 30 MB."""

_MOST_BEHIND = 2
"""Things to stage, such as one batch's posts and refusals, that may wait: it bounds the rows in memory."""
_ASKED_AT_ONCE = 900
"""Pids in one question to the ledger; SQLite takes 999 in any version."""

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
        external_refused: Refused external profiles by reason.
        pictures_named: Posts that name a picture, where the source has a place for them, by split.
        pictures_found: Those of them whose file is there, by split.
        image_folders: Where pictures are looked up, by split.
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
    external_refused: Counter[str] = field(default_factory=Counter)
    pictures_named: Counter[str] = field(default_factory=Counter)
    pictures_found: Counter[str] = field(default_factory=Counter)
    image_folders: dict[str, str] = field(default_factory=dict)

    @property
    def refused_share(self) -> float:
        """Refused rows over all rows."""
        return self.refused.total() / max(self.rows.total(), 1)

    @property
    def external_refused_share(self) -> float:
        """Refused external profiles over all of them; one alone is no share."""
        refused = self.external_refused.total()
        return refused / (refused + self.external) if refused > 1 else 0.0

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
    with (
        _Ledger(scratch / "ledger.sqlite") as ledger,
        ThreadPoolExecutor(LOOKUP_THREADS) as threads,
        _Behind() as behind,
    ):
        for split in source.splits:
            found.details[split] = source.details(split)
            root = source.image_root(split)
            for batch in _timed_batches(source.rows(split), phases):
                with phases("parse"):
                    posts, refusals = _sort_out(batch, source.place, split, found, ledger)
                with phases("stat"):
                    _look_at_images(posts, split, root, found, threads)
                with phases("stage"):
                    behind.do(_stage_posts, put, posts, source.place)
                    behind.do(_stage_refusals, put, refusals, run)
        for profiles in _timed_batches(source.external_profiles(), phases):
            refusals = [row for row in profiles if isinstance(row, Refusal)]
            stated = [row | {"alias": repaired(row["alias"])} for row in profiles if not isinstance(row, Refusal)]
            new = [row for row in stated if ledger.is_new_alias(row["alias"])]
            found.quirks[SEEN_ALIAS] += len(stated) - len(new)
            found.external += len(new)
            found.external_refused.update(refusal.reason for refusal in refusals)
            put(EXTERNAL_FILES, new, EXTERNAL_SCHEMA)
            _stage_refusals(put, refusals, run)
        found.users, found.unseen_test_posts = ledger.users()
    found.quirks += source.quirks
    if not found.rows.total():
        raise SourceError(f"{source.place} holds no posts: its files have no rows.")
    found.reconcile()
    return found


class _Behind:
    """Does one thing after the other in a thread, one behind the caller: files are written while rows are read."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "stage")
        self._doing: list[Future[None]] = []

    def __enter__(self) -> _Behind:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with self._thread:
            if failed is None:
                self._wait(0)

    def do(self, what: Callable[..., None], *given: Any) -> None:
        """Do something when all before it is done; what failed there is raised here or by the next call."""
        self._wait(_MOST_BEHIND)
        self._doing.append(self._thread.submit(what, *given))

    def _wait(self, most: int) -> None:
        while len(self._doing) > most:
            self._doing.pop(0).result()


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
    checked: list[Row | Refusal] = []
    for number, stated in enumerate(batch, found.rows[split] + 1):
        if not isinstance(stated, Refusal):
            check_columns(stated, place)
            stated = complete(stated, split, number)
        checked.append(stated)
    repeated = ledger.repeated(checked)
    posts: list[Row] = []
    refusals: list[Refusal] = []
    for at, row in enumerate(checked):
        refused = repeated.get(at)
        if refused is not None:
            refusals.append(refused)
        elif isinstance(row, Refusal):
            refusals.append(row)
        else:
            posts.append(row)
    found.rows[split] += len(batch)
    found.posts[split] += len(posts)
    found.refused_by_split[split] += len(refusals)
    found.refused.update(refusal.reason for refusal in refusals)
    return posts, refusals


def _stage_refusals(put: Stage, refusals: Sequence[Refusal], run: str) -> None:
    put(REFUSED_FILES, [vars(refusal) | {"run": run} for refusal in refusals], REFUSED_SCHEMA)


def _stage_posts(put: Stage, posts: Sequence[Row], place: str) -> None:
    try:
        put(POST_FILES, posts, POST_SCHEMA)
    except (ValueError, TypeError, OverflowError):
        for column in POST_SCHEMA:
            try:
                column_of(posts, column)
            except (ValueError, TypeError, OverflowError) as error:
                raise SourceError(
                    f"{place}: {column.name} of a post is not {column.type} ({type(error).__name__}).",
                    "A source gives every column the type that lake/specs.py states, or null.",
                ) from None
        raise


def _look_at_images(
    posts: Sequence[Row], split: Split, root: ImageRoot | None, found: ScanResult, threads: ThreadPoolExecutor
) -> None:
    files = look_up_all(root, [post.get("image_path") for post in posts], threads)
    for post, file in zip(posts, files, strict=True):
        post["image_status"] = file.status
        post["image_file"] = file.path
        post["image_folder"] = None if root is None else str(root.folder)
        post["image_size"] = file.size
        post["image_modified_at"] = file.modified_at
    found.images.update(file.status for file in files)
    if root is not None:
        found.image_folders[split] = str(root.folder)
        found.pictures_named[split] += sum(bool(post.get("image_path")) for post in posts)
        found.pictures_found[split] += sum(file.size is not None for file in files)


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

    def repeated(self, rows: Sequence[Row | Refusal]) -> dict[int, Refusal]:
        """Return the refusals of posts whose pid was met before, by place; the first, train before test, is kept."""
        posts = [(place, row) for place, row in enumerate(rows) if not isinstance(row, Refusal)]
        known = self._known([post["pid"] for _, post in posts])
        refused: dict[int, Refusal] = {}
        new: dict[str, tuple[bytes, float | None]] = {}
        users: Counter[tuple[str, str]] = Counter()
        for place, post in posts:
            pid, said = post["pid"], (_content(post), post["popularity"])
            kept = known.get(pid) or new.get(pid)
            if kept is None:
                new[pid] = said
                users[post["uid"], post["split"]] += 1
                continue
            same_label = said[1] is None or kept[1] is None or said[1] == kept[1]
            reason = "duplicate_pid" if kept[0] == said[0] and same_label else "conflicting_pid"
            refused[place] = refusal(post["source_row"], pid, reason)
        self._connection.executemany("INSERT INTO pids VALUES (?, ?, ?)", ((pid, *said) for pid, said in new.items()))
        self._connection.executemany(
            "INSERT INTO users VALUES (?, ?, ?) "
            "ON CONFLICT (uid) DO UPDATE SET train = train + excluded.train, test = test + excluded.test",
            ((uid, n if split == "train" else 0, n if split == "test" else 0) for (uid, split), n in users.items()),
        )
        return refused

    def _known(self, pids: Sequence[str]) -> dict[str, tuple[bytes, float | None]]:
        found = {}
        for start in range(0, len(pids), _ASKED_AT_ONCE):
            asked = pids[start : start + _ASKED_AT_ONCE]
            marks = ", ".join("?" * len(asked))
            rows = self._connection.execute(f"SELECT pid, content, label FROM pids WHERE pid IN ({marks})", asked)
            found.update({pid: (content, label) for pid, content, label in rows})
        return found

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
    digest = hashlib.blake2b(digest_size=16)
    said = [post.get(name) for name in CONTENT]
    for place, value in enumerate(said):
        if isinstance(value, np.ndarray | list | tuple):
            said[place] = "a vector"
            digest.update(np.ascontiguousarray(value, dtype=np.float32).data)
    digest.update(repr(said).encode())
    return digest.digest()
