"""What is wanted, done, given up and left, worked out on keys alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pyspark import inheritable_thread_target
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from smp_features.extraction import statuses
from smp_features.extractors.base import Extractor
from smp_features.lake.tables import Lakehouse

PREFIX_DIGITS = 3
"""Leading hex digits by which unfinished keys are counted, so 4096 counts at most: the grain of chunks."""

LISTED = 8
"""Unfinished keys with the same leading digits that are brought along with their count. Keys are digests, so some
thousands of new ones are nearly always listed whole; of more, only counts reach the driver."""

LEFT, REFUSED, UNKNOWN = "left", "refused", "unknown"
UNFINISHED = (LEFT, REFUSED, UNKNOWN)
"""States of keys that still need something: computing, a row as their content was refused, content."""


@dataclass(frozen=True)
class MadeTexts:
    """Texts that a configured extractor made of pictures.

    Attributes:
        table: Where they are.
        fingerprint: Of the extractor.
    """

    table: str
    fingerprint: str


@dataclass(frozen=True)
class Scope:
    """What is asked of one extractor: everything that decides the ledger.

    Attributes:
        extractor: The configured extractor.
        fingerprint: Its fingerprint.
        made_texts: Texts that it is wanted for beside titles, by the extractors that made them.
        versions: Table to the Delta version that is read.
        max_attempts: Transient failures after which a key is given up.
    """

    extractor: Extractor
    fingerprint: str
    made_texts: tuple[MadeTexts, ...]
    versions: Mapping[str, int]
    max_attempts: int


@dataclass(frozen=True)
class Ledger:
    """Counts of an extractor's keys.

    Attributes:
        done: Rows in the feature table by status.
        given_up: Keys that failed transiently as often as allowed.
        left: Keys to compute, by their leading digits.
        refused: Keys left whose content was found unusable when it was read in: rows without computing.
        unknown: Keys left that the table of contents does not hold.
        duplicates: Keys with more than one row, which nothing here ever writes.
    """

    done: Mapping[str, int] = field(default_factory=dict)
    given_up: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0
    unknown: int = 0
    duplicates: int = 0

    @property
    def to_compute(self) -> int:
        """Keys to compute."""
        return sum(self.left.values())

    @property
    def to_do(self) -> int:
        """Keys without a row that are not given up."""
        return self.to_compute + self.refused + self.unknown

    @property
    def ok(self) -> int:
        """Keys with features."""
        return self.done.get(statuses.OK, 0)

    @property
    def failed(self) -> int:
        """Keys with a permanent status."""
        return sum(self.done.values()) - self.ok

    @property
    def wanted(self) -> int:
        """All keys."""
        return sum(self.done.values()) + self.given_up + self.to_do

    def after(self, work: Ledger) -> Ledger:
        """Return the counts after some work.

        Args:
            work: The counts, after it, of the keys that were left before it.
        """
        done = dict(self.done)
        for status, keys in work.done.items():
            done[status] = done.get(status, 0) + keys
        return replace(
            work, done=done, given_up=self.given_up + work.given_up, duplicates=self.duplicates + work.duplicates
        )


def keys_wanted(lakehouse: Lakehouse, scope: Scope) -> DataFrame:
    """Return the distinct keys that an extractor is wanted for, as one column `key`."""
    posts = lakehouse.read("posts", scope.versions["posts"])
    if scope.extractor.reads == "image":
        return posts.where("image_key IS NOT NULL").select(F.col("image_key").alias("key")).distinct()
    wanted = posts.select(F.col("title_key").alias("key"))
    for made in scope.made_texts:
        texts = (
            lakehouse.read(made.table, scope.versions[made.table])
            .where((F.col("extractor") == made.fingerprint) & (F.col("status") == statuses.OK))
            .join(posts.select("image_key"), "image_key", "left_semi")
            .select(F.col("text_key").alias("key"))
        )
        wanted = wanted.union(texts)
    return wanted.distinct()


FACTS = {
    "status": "string",
    "row": "int",
    "content": "string",
    "tried_at": "timestamp",
    "reset_at": "timestamp",
}
"""What tables say of a key, with SQL types."""


@dataclass(frozen=True)
class Work:
    """The unfinished keys of an extractor, which stay what they are while the tables change.

    Attributes:
        keys: Columns `key`, and `content`, the status of the content, null if there is none.
        shards: The shards that they lie in, if they are few; None if they are many, and may be in all.
    """

    keys: DataFrame
    shards: tuple[str, ...] | None = None

    @classmethod
    def of_few(cls, session: SparkSession, unfinished: Sequence[tuple[str, str | None]]) -> Work:
        """Return work on keys that the driver holds, each with the status of its content."""
        keys = session.createDataFrame(list(unfinished), "key string, content string")
        return cls(keys.coalesce(1), tuple(sorted({key[0] for key, _ in unfinished})))

    @property
    def to_compute(self) -> DataFrame:
        """Keys that a model must compute, as one column `key`."""
        return self.keys.where(F.col("content") == statuses.OK).select("key")

    @property
    def refused(self) -> DataFrame:
        """Keys whose content is unusable, as one column `key`."""
        return self.keys.where(F.col("content") != statuses.OK).select("key")


def keys_by_state(lakehouse: Lakehouse, scope: Scope, work: Work | None = None) -> DataFrame:
    """Return every wanted key with where it stands.

    Everything known of a key is put under each other and grouped once: one shuffle of keys instead of three joins.

    Args:
        lakehouse: The tables.
        scope: What is asked, at which versions.
        work: The keys that are asked about, as they were before some work; None asks for all keys that posts want.

    Returns:
        Columns `key`; `state`, which is `done`, `given_up` or one of `UNFINISHED`; `status`, of its row, null without
        one; `rows`, in the feature table, which must be 0 or 1; `content`, the status of the content, null if there is
        none.
    """
    extractor = scope.extractor
    wanted = keys_wanted(lakehouse, scope) if work is None else work.keys
    missing = [F.lit(None).cast(kind).alias(fact) for fact, kind in FACTS.items() if fact not in wanted.columns]
    known = wanted.select("*", F.lit(True).alias("wanted"), *missing)
    shards = None if work is None else work.shards
    rows = lakehouse.read(extractor.table, scope.versions[extractor.table], shards)
    rows = rows.where(F.col("extractor") == scope.fingerprint).select(
        F.col(extractor.key).alias("key"), "status", F.lit(1).alias("row")
    )
    if shards is not None:  # few keys: nothing of the table but their rows is moved
        rows = rows.join(F.broadcast(wanted.select("key")), "key", "left_semi")
    parts = [rows]
    if work is None:
        content_status = F.col("status") if extractor.reads == "image" else F.lit(statuses.OK)
        contents = lakehouse.read(extractor.contents, scope.versions[extractor.contents])
        parts.append(contents.select(F.col(extractor.key).alias("key"), content_status.alias("content")))
    if scope.versions["attempts"] > 0:  # as created, it is empty, and asking it costs a job
        parts.append(_attempts(lakehouse, scope))
    for part in parts:
        known = known.unionByName(part, allowMissingColumns=True)
    # Attempts later than the key's last reset; a null reset was never.
    tries = F.size(F.filter("tries", lambda at: F.col("reset").isNull() | (at > F.col("reset"))))
    state = (
        F.when(F.col("status").isNotNull(), "done")
        .when(F.col("content") != statuses.OK, REFUSED)
        .when(tries >= scope.max_attempts, "given_up")
        .when(F.col("content").isNull(), UNKNOWN)
        .otherwise(LEFT)
    )
    return (
        known.groupBy("key")
        .agg(
            F.max("wanted").alias("wanted"),
            F.max("status").alias("status"),
            F.count("row").alias("rows"),
            F.max("content").alias("content"),
            F.collect_list("tried_at").alias("tries"),
            F.max("reset_at").alias("reset"),
        )
        .where("wanted")
        .select("key", state.alias("state"), "status", "rows", "content")
    )


@dataclass(frozen=True)
class Stock:
    """What was counted.

    Attributes:
        ledger: The counts.
        unfinished: The unfinished keys, each with the status of its content; None if they are too many to be listed.
    """

    ledger: Ledger
    unfinished: tuple[tuple[str, str | None], ...] | None


def take_stock(states: DataFrame, *, listing: bool = True) -> Stock:
    """Count the keys of `keys_by_state`, and list the unfinished ones if they are few, in one Spark job.

    Args:
        states: The keys.
        listing: False where only counts are asked for, or the keys cannot be few: that they are many is only known
            when all are put together.
    """
    is_unfinished = F.col("state").isin(*UNFINISHED)
    listed = F.collect_list(F.when(is_unfinished, F.col("key"))) if listing else F.lit(None).cast("array<string>")
    rows = (
        states.withColumn("prefix", F.when(is_unfinished, F.substring("key", 1, PREFIX_DIGITS)))
        .withColumn("content", F.when(is_unfinished, F.col("content")))
        .groupBy("state", "status", "content", "prefix")
        .agg(
            F.count("*").alias("keys"),
            F.count(F.when(F.col("rows") > 1, True)).alias("duplicates"),
            listed.alias("listed"),
        )
        .withColumn("listed", F.when(F.size("listed") <= LISTED, F.col("listed")))
        .collect()
    )

    def total(state: str) -> int:
        return sum(row["keys"] for row in rows if row["state"] == state)

    ledger = Ledger(
        done={row["status"]: row["keys"] for row in rows if row["state"] == "done"},
        given_up=total("given_up"),
        left={row["prefix"]: row["keys"] for row in rows if row["state"] == LEFT},
        refused=total(REFUSED),
        unknown=total(UNKNOWN),
        duplicates=sum(row["duplicates"] for row in rows),
    )
    if any(row["listed"] is None for row in rows):
        return Stock(ledger, None)
    return Stock(ledger, tuple((key, row["content"]) for row in rows for key in sorted(row["listed"])))


def _attempts(lakehouse: Lakehouse, scope: Scope) -> DataFrame:
    """Return `key`, `tried_at` of its transient failures since the whole stage was reset, and its own `reset_at`."""
    attempts = lakehouse.read("attempts", scope.versions["attempts"]).where(
        (F.col("stage") == scope.extractor.name)
        & (F.col("extractor").isNull() | (F.col("extractor") == scope.fingerprint))
    )
    reset = attempts.where((F.col("status") == statuses.RESET) & F.col("key").isNull()).agg(F.max("at")).head()
    if reset is not None and reset[0] is not None:
        attempts = attempts.where(F.col("at") > reset[0])
    is_reset = F.col("status") == statuses.RESET
    return attempts.where("key IS NOT NULL").select(
        "key", F.when(~is_reset, F.col("at")).alias("tried_at"), F.when(is_reset, F.col("at")).alias("reset_at")
    )


@dataclass(frozen=True)
class Plan:
    """An extractor's keys at given table versions.

    Attributes:
        scope: What was asked.
        stock: What was counted.
        states: `keys_by_state`, not kept: Spark's cache does not tell two versions of a Delta table apart.
    """

    scope: Scope
    stock: Stock
    states: DataFrame

    @property
    def ledger(self) -> Ledger:
        """The counts."""
        return self.stock.ledger

    @property
    def unfinished(self) -> DataFrame:
        """The keys that still need something, worked out anew: `key`, and `content`, the status of the content."""
        return self.states.where(F.col("state").isin(*UNFINISHED)).select("key", "content")


def make_plan(lakehouse: Lakehouse, scope: Scope, *, listing: bool = True) -> Plan:
    """Work out where every wanted key stands, and unless only counts are asked for, list what is unfinished."""
    states = keys_by_state(lakehouse, scope)
    begun = scope.versions[scope.extractor.table] > 0  # as created, the table is empty, and everything is left
    return Plan(scope, take_stock(states, listing=listing and begun), states)


def make_plans(lakehouse: Lakehouse, scopes: Sequence[Scope], *, listing: bool = True) -> dict[str, Plan]:
    """Return several extractors' plans by name, made side by side: little of the time is spent in Spark's tasks."""
    with ThreadPoolExecutor(max(1, len(scopes)), thread_name_prefix="plan") as pool:
        plans = pool.map(inheritable_thread_target(lambda scope: make_plan(lakehouse, scope, listing=listing)), scopes)
        return {scope.extractor.name: plan for scope, plan in zip(scopes, plans, strict=True)}


def scope_of(
    extractor: Extractor, configured: Mapping[str, Extractor], versions: Mapping[str, int], max_attempts: int
) -> Scope:
    """Return what is asked of one extractor at given table versions.

    Args:
        extractor: One of those that are configured.
        configured: All of them, by name.
        versions: As `read_versions` says.
        max_attempts: Transient failures after which a key is given up.
    """
    made = tuple(MadeTexts(maker.table, maker.fingerprint) for maker in makers_for(extractor, configured))
    read = {table: versions[table] for table in _inputs_of(extractor, configured)}
    return Scope(extractor, extractor.fingerprint, made, read, max_attempts)


def makers_for(extractor: Extractor, configured: Mapping[str, Extractor]) -> list[Extractor]:
    """Return the extractors whose texts this one reads."""
    return [each for each in configured.values() if each.makes_text is not None and extractor.reads_made_texts]


def read_versions(
    lakehouse: Lakehouse, extractors: Iterable[Extractor], configured: Mapping[str, Extractor]
) -> dict[str, int]:
    """Return the latest version of every table that the ledgers of these extractors read."""
    return lakehouse.versions(sorted({table for each in extractors for table in _inputs_of(each, configured)}))


def _inputs_of(extractor: Extractor, configured: Mapping[str, Extractor]) -> tuple[str, ...]:
    made = (maker.table for maker in makers_for(extractor, configured))
    return ("posts", extractor.contents, extractor.table, "attempts", *made)


def changed_versions(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the tables whose version is not what it was, with the new one."""
    return {table: version for table, version in after.items() if before.get(table) != version}
