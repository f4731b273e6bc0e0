"""The tables of a configuration: the built-in ones, one per kind of extracted content, and the features' columns.

One list of columns per table: SQL types, Arrow types, comments, constraints and added columns follow from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from smp_features.catalogue import Catalogue, Feature, fingerprint_column
from smp_features.config import Config
from smp_features.errors import ConfigError
from smp_features.extractors.base import Extractor
from smp_features.extractors.registry import build_extractors
from smp_features.lake import specs
from smp_features.lake.specs import Column, TableSpec


@dataclass(frozen=True)
class Schema:
    """What a configuration makes of the lakehouse.

    Attributes:
        extractors: By name, in the order they run.
        catalogue: Their features, and those of the source's columns.
        specs: All tables by name.
    """

    extractors: Mapping[str, Extractor]
    catalogue: Catalogue
    specs: Mapping[str, TableSpec]

    @classmethod
    def of(cls, config: Config) -> Schema:
        """Return the schema of a configuration; no model is looked for or loaded.

        Raises:
            ConfigError: There is no such kind of extractor or feature group, or two things have one name.

        >>> Schema.of(Config()).specs["captions"].key
        ('image_key', 'extractor')
        """
        extractors = build_extractors(config.models)
        catalogue = Catalogue.of(extractors)
        catalogue.check(config)
        content: dict[str, TableSpec] = {}
        for extractor in extractors.values():  # several of one kind share a table, by their fingerprints
            content.setdefault(extractor.table, content_table(extractor))
        tables = (
            *(specs.POSTS, specs.LABELS, specs.USER_PROFILES, specs.IMAGES, specs.TEXTS),
            *content.values(),
            *(specs.ATTEMPTS, specs.EXTRACTORS),
            post_features(extractors.values(), catalogue),
            training_set(extractors.values(), catalogue),
            *(specs.PREDICTIONS, specs.QUARANTINE, specs.RUNS),
        )
        _check_names(tables, content)
        return cls(extractors, catalogue, {spec.name: spec for spec in tables})


class Configured:
    """What has to do with the tables of one configuration; its schema is made once, when it is asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def _schema(self) -> Schema:
        return Schema.of(self.config)

    @property
    def specs(self) -> Mapping[str, TableSpec]:
        """All tables of the configuration, by name."""
        return self._schema.specs

    @property
    def catalogue(self) -> Catalogue:
        """All features of the configuration."""
        return self._schema.catalogue

    @property
    def extractors(self) -> Mapping[str, Extractor]:
        """The configured extractors, in the order they run."""
        return self._schema.extractors


def content_table(extractor: Extractor) -> TableSpec:
    """Return the table of an extractor: content key, fingerprint, what it makes, and how that went.

    A text that is made is content in turn, so it also gets its key among `texts`.
    """
    key = specs.IMAGE_KEY if extractor.reads == "image" else specs.TEXT_KEY
    made = [Column(each.name, specs.sql_type(each.arrow_type), each.comment) for each in extractor.outputs]
    if extractor.makes_text is not None:
        comment = f"SHA-256 of the {extractor.makes_text}; joins `texts`; null unless ok"
        made.append(Column("text_key", "string", comment))
    return specs.sharded_table(
        extractor.table,
        extractor.table_comment or f"one {extractor.noun} per {extractor.reads} and extractor",
        (key.name, "extractor"),
        key,
        specs.EXTRACTOR,
        *made,
        specs.STATUS,
        specs.ERROR,
        specs.COMPUTED_AT,
        **(_constraints(extractor) if extractor.constraints is None else extractor.constraints),
    )


def _constraints(extractor: Extractor) -> dict[str, str]:
    """Return what must hold of rows that are `ok`: texts with their key, numbers and vectors without NaN."""
    rules = {}
    for column in extractor.outputs:
        name, there = column.name, f"{column.name} IS NOT NULL"
        if name == extractor.makes_text:
            rules[f"{name}_if_ok"] = f"status <> 'ok' OR ({there} AND text_key IS NOT NULL)"
        elif pa.types.is_list(column.arrow_type) and pa.types.is_floating(column.arrow_type.value_type):
            finite = f"size({name}) > 0 AND NOT exists({name}, v -> v IS NULL OR isnan(v))"
            rules[f"{name}_is_finite"] = f"status <> 'ok' OR ({there} AND {finite})"
        elif pa.types.is_floating(column.arrow_type):
            rules[f"{name}_is_finite"] = f"status <> 'ok' OR ({there} AND NOT isnan({name}))"
    return rules


def post_features(extractors: Collection[Extractor], catalogue: Catalogue) -> TableSpec:
    """Return the table of features: those of every extractor, and the texts that were made of each post.

    What extractors bring may be null, so that a table outlives an extractor that leaves the configuration.
    """
    return TableSpec(
        "post_features",
        "one row per post: every feature, for the configured extractors",
        (
            Column("pid", "string", "the post", required=True),
            Column("uid", "string", "the user", required=True),
            Column("split", "string", "train (labelled) or test", required=True),
            Column("event_ts", "timestamp", "when it was posted (UTC)", required=True),
            Column("title", "string", "the title, '' if empty", required=True),
            *(
                Column(each.name, "string", f"the generated {each.makes_text}; null without a usable {_of(each)}")
                for each in extractors
                if each.makes_text is not None
            ),
            Column("image_status", "string", "ok, or why there is no picture", required=True),
            *(Column(feature.name, feature.sql_type, feature.comment) for feature in catalogue.features),
            *_fingerprints(extractors),
            Column("time_rules", "string", "strict or challenge: the rules the row was made under", required=True),
            Column("features_key", "string", "hash of all columns above; decides whether a row changed", required=True),
            Column("inputs_key", "string", "hash of what it was made from; decides if it is made again", required=True),
            Column("computed_at", "timestamp", "when the row was made (UTC)", required=True),
        ),
        ("pid",),
        statistics=("pid", "uid", "event_ts"),
    )


def training_set(extractors: Collection[Extractor], catalogue: Catalogue) -> TableSpec:
    """Return the table that models are trained on: features, label and fold."""
    return TableSpec(
        "training_set",
        "one row per labelled post: features as known at the post, label, fold",
        (
            Column("pid", "string", "the post", required=True),
            Column("row_id", "bigint", "64-bit hash of pid, distinct in the table", required=True),
            Column("uid", "string", "the user", required=True),
            Column("event_ts", "timestamp", "when it was posted (UTC)", required=True),
            Column("popularity", "double", "the label, log2(views + 1)", required=True),
            Column("label_known_at", "timestamp", "when the label could be known (UTC)", required=True),
            Column("fold", "int", "identity-isolated fold, 0..folds-1; -1: gate set, never trained on", required=True),
            *(_trained(feature) for feature in catalogue.features),
            *(
                Column(f"has_{name}", "double", f"1 if {name} was there, 0 if it is zeros")
                for name in catalogue.of_kind("vector")
            ),
            *_fingerprints(extractors),
            Column("time_rules", "string", "strict or challenge: the rules the row was made under", required=True),
            Column("features_key", "string", "of the row of `post_features` this was made from", required=True),
            Column("row_hash", "string", "hash of features_key, label, when it was known, and fold", required=True),
        ),
        ("pid",),
        constraints={"popularity_is_finite": "NOT isnan(popularity)"},
        statistics=("pid", "row_id", "uid", "event_ts"),
    )


def _trained(feature: Feature) -> Column:
    instead = "; here zeros instead of null" if feature.kind == "vector" else ""
    return Column(feature.name, feature.sql_type, feature.comment + instead)


def _fingerprints(extractors: Collection[Extractor]) -> list[Column]:
    return [
        Column(fingerprint_column(each.name), "string", f"fingerprint of the extractor {each.name}; see `extractors`")
        for each in extractors
    ]


def _of(extractor: Extractor) -> str:
    return "picture" if extractor.reads == "image" else "text"


def _check_names(tables: Iterable[TableSpec], content: Mapping[str, TableSpec]) -> None:
    """Refuse a table that is there twice, and a column that is in one table twice."""
    names: set[str] = set()
    for spec in tables:
        if spec.name in names:
            raise ConfigError(
                f"An extractor wants to fill the table {spec.name}, which the package has for something else.",
                f"Tables of extractors: {', '.join(content)}.",
            )
        names.add(spec.name)
        seen: set[str] = set()
        for column in spec.column_names:
            if column in seen:
                raise ConfigError(
                    f"Two columns of {spec.name} would be called '{column}': one of an extractor, and another.",
                    "Give the entry under `models` another name.",
                )
            seen.add(column)
