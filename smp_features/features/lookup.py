"""Finds what extractors computed of each post: which tables are joined, by which key, and what becomes of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from smp_features.catalogue import Catalogue, Lookup
from smp_features.lake.tables import Lakehouse

_KEYS = {"image": "image_key", "title": "title_key"}
"""Columns of `posts` with the keys of a post's own contents."""


@dataclass(frozen=True)
class Join:
    """One extractor's rows, joined to posts by one of their contents.

    Attributes:
        extractor: Its name.
        table: Its table.
        key: The content key of that table.
        post_key: The column of the posts that it is joined by.
        found: What the status of the row is called in the result; null where there is no row.
        values: Columns of the result to columns of the table: numbers, categories and texts.
        vectors: The same of vectors, which are joined last and only to the posts that need them.
    """

    extractor: str
    table: str
    key: str
    post_key: str
    found: str
    values: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)

    @property
    def text_keys(self) -> tuple[str, ...]:
        """The columns of the result with the keys of texts that the extractor made."""
        return tuple(name for name, column in self.values.items() if column == "text_key")


def text_key_of(maker: str) -> str:
    """Return the column with the key of the text that an extractor made of a post."""
    return f"_{maker}_key"


def joins(lakehouse: Lakehouse) -> list[Join]:
    """Return what must be joined for the features of a configuration, the makers of texts first.

    Every text that is made is a column of `post_features`, named like its extractor.
    """
    extractors, catalogue = lakehouse.extractors, lakehouse.catalogue
    found: dict[tuple[str, str], Join] = {}

    def of(extractor: str, content: str) -> Join:
        described = extractors[extractor]
        join = Join(
            extractor,
            described.table,
            f"{described.reads}_key",
            _KEYS.get(content) or text_key_of(content),
            f"_{extractor}_of_{content}",
        )
        return found.setdefault((extractor, content), join)

    for name, extractor in extractors.items():
        if extractor.makes_text is not None:
            content = "image" if extractor.reads == "image" else "title"
            of(name, content).values.update({name: extractor.makes_text, text_key_of(name): "text_key"})
    for feature in catalogue.features:
        if isinstance(feature.made, Lookup):
            join = of(feature.made.extractor, feature.made.of)
            (join.vectors if feature.kind == "vector" else join.values)[feature.name] = feature.made.column
    return list(found.values())


def with_values(
    posts: DataFrame,
    lakehouse: Lakehouse,
    joined: list[Join],
    fingerprints: Mapping[str, str],
    versions: Mapping[str, int],
) -> DataFrame:
    """Join to each post the texts, numbers and categories that were extracted, and the status of every row.

    Of vectors only the status is looked up.

    Args:
        posts: With the keys of their contents.
        lakehouse: The tables.
        joined: Of `joins`.
        fingerprints: Of the configured extractors, by name.
        versions: Of the tables.
    """
    for join in joined:
        rows = _rows(lakehouse, join, fingerprints, versions)
        posts = posts.join(
            rows.select(
                F.col(join.key).alias(join.post_key),
                F.col("status").alias(join.found),
                *(F.col(column).alias(name) for name, column in join.values.items()),
            ),
            join.post_key,
            "left",
        )
    return posts


def with_vectors(
    posts: DataFrame,
    lakehouse: Lakehouse,
    joined: list[Join],
    fingerprints: Mapping[str, str],
    versions: Mapping[str, int],
) -> DataFrame:
    """Join to each post the vectors that were extracted; null where there is none. Arguments as of `with_values`."""
    for join in joined:
        if join.vectors:
            rows = _rows(lakehouse, join, fingerprints, versions)
            vectors = [F.col(column).alias(name) for name, column in join.vectors.items()]
            posts = posts.join(rows.select(F.col(join.key).alias(join.post_key), *vectors), join.post_key, "left")
    return posts


def made_of(catalogue: Catalogue) -> dict[str, str]:
    """Return how the value of each feature is found, in words that change when that changes."""
    return {feature.name: repr(feature.made) for feature in catalogue.features}


def _rows(lakehouse: Lakehouse, join: Join, fingerprints: Mapping[str, str], versions: Mapping[str, int]) -> DataFrame:
    rows = lakehouse.read(join.table, versions[join.table])
    return rows.where(F.col("extractor") == fingerprints[join.extractor])
