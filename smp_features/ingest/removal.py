"""Refuses a source that is not all there: a half, posts, labels, pictures or a field gone that are stored.

A folder that is not mounted and a file that was cut look like a source that removed its posts. So what is gone is
counted before anything is written, and a person must say that it is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.ingest.scan import ScanResult
from smp_features.ingest.staged import PROFILE_FIELDS
from smp_features.lake.tables import Lakehouse

_MEANT = "Nothing was written. Check that the source is all there; if this is meant, say --allow-removal."

_LEAST_NAMED = 3
"""Pictures that a half must name before it counts that none of them is there, while the other half has some."""

POST_COLUMNS = (
    "title",
    "tags",
    "category",
    "subcategory",
    "concept",
    "media_type",
    "path_alias",
    "is_public",
    "media_status",
    "latitude",
)
"""Columns of `posts` that a source does not lose from every post at once."""


@dataclass(frozen=True)
class Gone:
    """How much of something that is stored a source no longer has.

    Attributes:
        what: Such as `posts of train`.
        stored: How many are stored.
        gone: How many of them the source lacks.
    """

    what: str
    stored: int
    gone: int

    def is_too_much(self, share: float) -> bool:
        """Whether all are gone, or more than one and more than a share of them."""
        return self.gone > 0 and (self.gone == self.stored or (self.gone > 1 and self.gone > share * self.stored))


def refuse_without_pictures(found: ScanResult, place: str, settings: SourceConfig) -> None:
    """Refuse a source that names pictures, none of which is there.

    Args:
        found: What the source holds.
        place: The source, for messages.
        settings: The section `source`.

    Raises:
        SourceError: No picture that the source names was found, or none of a half that names several.
    """
    if settings.allow_removal:
        return
    none_at_all = not found.pictures_found.total()
    for split, named in found.pictures_named.items():
        if named >= (1 if none_at_all else _LEAST_NAMED) and not found.pictures_found[split]:
            raise SourceError(
                f"{place}: none of the {named:,} pictures that posts of {split} name was found in "
                f"{found.image_folders[split]}.",
                f"{_MEANT} Such posts are stored without a picture.",
            )


def refuse_removals(
    lakehouse: Lakehouse, staged: DataFrame | None, found: ScanResult, place: str, settings: SourceConfig
) -> None:
    """Refuse a source that lacks more of what is stored than `source.max_removed_share`.

    Args:
        lakehouse: The tables, as they were.
        staged: The posts of the source; None where they are not staged, and then only their number is compared.
        found: What the source holds.
        place: The source, for messages.
        settings: The section `source`.

    Raises:
        SourceError: Posts, labels, pictures, external profiles or the values of a column are gone.
    """
    refuse_without_pictures(found, place, settings)
    if settings.allow_removal or not lakehouse.exists("posts"):
        return
    if staged is None:
        _refuse(_fewer(lakehouse, found, settings), place, settings)
        return
    _refuse(_gone(lakehouse, staged, found, settings), place, settings)


def _refuse(gone: Iterator[Gone], place: str, settings: SourceConfig) -> None:
    for each in gone:
        if each.is_too_much(settings.max_removed_share):
            raise SourceError(
                f"{place}: {each.gone:,} of {each.stored:,} stored {each.what} are gone, more than "
                f"source.max_removed_share = {settings.max_removed_share:g} allows.",
                _MEANT,
            )


def _fewer(lakehouse: Lakehouse, found: ScanResult, settings: SourceConfig) -> Iterator[Gone]:
    if settings.limit is not None:
        return
    stored = lakehouse.read("posts").count()
    yield Gone("posts", stored, max(0, stored - found.posts.total()))


def _gone(lakehouse: Lakehouse, staged: DataFrame, found: ScanResult, settings: SourceConfig) -> Iterator[Gone]:
    """Yield what is stored and what of it is gone; only what a run would write over counts."""
    posts = lakehouse.read("posts")
    labelled = lakehouse.read("labels").select("pid", F.lit(True).alias("labelled"))
    now = staged.select(
        "pid",
        F.lit(True).alias("there"),
        (F.col("image_status") == "present").alias("pictured"),
        F.col("popularity").isNotNull().alias("labelled_now"),
        *(_stated(name).alias(f"now_{name}") for name in POST_COLUMNS),
    )
    before = posts.select(
        "pid",
        "split",
        F.col("image_key").isNotNull().alias("had_picture"),
        *(_stated(name).alias(f"had_{name}") for name in POST_COLUMNS),
    )
    joined = before.join(labelled, "pid", "left").join(now, "pid", "left")
    there, lost_label = F.col("there").isNotNull(), F.col("labelled").isNotNull() & ~F.col("labelled_now")
    counts = {
        "posts": F.lit(True),
        "posts_gone": ~there,
        "pictures": there & F.col("had_picture"),
        "pictures_gone": there & F.col("had_picture") & ~F.col("pictured"),
        "labels": there & F.col("labelled").isNotNull(),
        "labels_gone": there & lost_label,
        **{f"had_{name}": there & F.col(f"had_{name}") for name in POST_COLUMNS},
        **{f"now_{name}": there & F.col(f"now_{name}") for name in POST_COLUMNS},
    }
    by_split = joined.groupBy("split").agg(*(_count(holds).alias(name) for name, holds in counts.items())).collect()
    kinds = ("pictures", "labels") if settings.limit is not None else ("posts", "pictures", "labels")
    for kind in kinds:
        for row in by_split:
            yield Gone(f"{kind} of {row['split']}", row[kind], row[f"{kind}_gone"])
    totals = {name: sum(row[name] for row in by_split) for name in counts}
    yield from _emptied("posts", POST_COLUMNS, totals)
    if settings.limit is None:
        yield from _profiles_gone(lakehouse, staged, found)


def _profiles_gone(lakehouse: Lakehouse, staged: DataFrame, found: ScanResult) -> Iterator[Gone]:
    profiles = lakehouse.read("user_profiles")
    own = F.col("origin") == "user_data"
    had = {f"had_{name}": _count(own & _stated(name)) for name in PROFILE_FIELDS}
    external = F.count_distinct(F.when(F.col("origin") == "external", F.col("uid")))
    stored = profiles.agg(external.alias("external"), *(count.alias(name) for name, count in had.items())).collect()[0]
    now = staged.agg(*(_count(_stated(name)).alias(f"now_{name}") for name in PROFILE_FIELDS)).collect()[0]
    yield Gone("external profiles", stored["external"], max(0, stored["external"] - found.external))
    yield from _emptied("profiles", PROFILE_FIELDS, stored.asDict() | now.asDict())


def _emptied(of: str, columns: Sequence[str], counts: Mapping[str, int]) -> Iterator[Gone]:
    """Yield the columns whose values are all gone; that some are is nobody's fault."""
    for name in columns:
        if counts[f"had_{name}"] > 1 and not counts[f"now_{name}"]:
            yield Gone(f"values of {name} of {of}", counts[f"had_{name}"], counts[f"had_{name}"])


def _stated(name: str) -> Column:
    """Return whether a column holds something; the empty text is nothing."""
    value = F.col(name)
    return value.isNotNull() & (value != "") if name in ("title", "tags") else value.isNotNull()


def _count(holds: Column) -> Column:
    return F.count(F.when(holds, 1))
