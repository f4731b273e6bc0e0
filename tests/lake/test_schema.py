"""The schema of a configuration: one list of columns per table, and everything else follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pytest

from smp_features.catalogue import Feature, Lookup
from smp_features.config import Config
from smp_features.errors import ConfigError
from smp_features.extractors.base import Extractor, OutputColumn
from smp_features.extractors.clip import ClipImageExtractor
from smp_features.lake import schema as schemas
from smp_features.lake.schema import Schema, content_table
from smp_features.lake.specs import arrow_schema, arrow_type, sql_type
from smp_features.lake.tables import create_statement, literal

SCHEMA = Schema.of(Config())


@dataclass(frozen=True)
class Colours(Extractor):
    """An extractor of another package."""

    kind: ClassVar[str] = "colours"
    reads: ClassVar[Literal["image", "text"]] = "image"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "colour_histograms"
    noun: ClassVar[str] = "histogram"
    outputs = (
        OutputColumn("histogram", pa.list_(pa.float32()), "shares of 8 colours; null unless ok"),
        OutputColumn("contrast", pa.float64(), "0..1; null unless ok"),
        OutputColumn("pixels", pa.int32(), "counted; null unless ok"),
    )

    def load(self, device, threads=None):
        """Never asked for: a schema needs no model."""
        raise AssertionError


def _schema_with(monkeypatch, *extractors: Extractor) -> Schema:
    built = {**SCHEMA.extractors, **{extractor.name: extractor for extractor in extractors}}
    monkeypatch.setattr(schemas, "build_extractors", lambda models: built)
    return Schema.of(Config())


def test_the_tables_of_the_roles_are_what_they_were():
    captions, vectors, perplexities = (SCHEMA.specs[name] for name in ("captions", "text_embeddings", "perplexities"))
    assert captions.comment == "one caption per image and captioner"
    assert captions.column_names == (
        *("shard", "image_key", "extractor", "caption", "text_key", "status", "error", "computed_at"),
    )
    assert captions.constraints == {
        "key_is_sha256": "image_key RLIKE '^[0-9a-f]{64}$'",
        "shard_of_key": "shard = substring(image_key, 1, 1)",
        "caption_if_ok": "status <> 'ok' OR (caption IS NOT NULL AND text_key IS NOT NULL)",
    }
    assert vectors.constraints["embedding_is_finite"] == (
        "status <> 'ok' OR (embedding IS NOT NULL AND size(embedding) > 0 "
        "AND NOT exists(embedding, v -> v IS NULL OR isnan(v)))"
    )
    assert perplexities.constraints["perplexity_is_finite"] == (
        "status <> 'ok' OR (log_perplexity IS NOT NULL AND log_perplexity >= 0 AND NOT isnan(log_perplexity))"
    )
    assert [column.sql_type for column in perplexities.columns[3:6]] == ["double", "int", "boolean"]


def test_a_new_kind_of_extractor_brings_its_table_and_its_columns(monkeypatch):
    schema = _schema_with(monkeypatch, Colours(model="colours"))
    table = schema.specs["colour_histograms"]
    assert table.key == ("image_key", "extractor") and table.sharded
    assert table.comment == "one histogram per image and extractor"
    assert {column.name: column.sql_type for column in table.columns[3:6]} == {
        "histogram": "array<float>", "contrast": "double", "pixels": "int",
    }  # fmt: skip
    assert {"histogram_is_finite", "contrast_is_finite"} <= table.constraints.keys()
    assert "pixels_is_finite" not in table.constraints
    assert list(schema.specs).index("colour_histograms") == list(schema.specs).index("attempts") - 1
    assert {"colours_histogram", "colours_extractor"} <= set(schema.specs["post_features"].column_names)
    trained = {column.name: column for column in schema.specs["training_set"].columns}
    assert trained["colours_histogram"].comment.endswith("; here zeros instead of null")
    assert {"has_colours_histogram", "colours_extractor"} <= trained.keys()
    assert not trained["colours_histogram"].required  # the table outlives the extractor
    assert "colours" in schema.catalogue.content_groups


def test_several_extractors_of_one_kind_share_a_table(monkeypatch):
    second = ClipImageExtractor(SCHEMA.extractors["clip_image"].files, model="other")
    schema = _schema_with(monkeypatch, second)
    assert schema.specs.keys() == SCHEMA.specs.keys()
    assert "other_image_extractor" in schema.specs["post_features"].column_names


def test_tables_and_columns_that_are_taken_are_refused(monkeypatch):
    class Posts(Colours):
        table = "posts"

    class Title(Colours):
        features = (Feature("title", "new", "number", "", made=Lookup("colours", "image", "contrast")),)

    for kind, said in (
        (Posts, "wants to fill the table posts"),
        (Title, "Two columns of post_features would be called 'title'"),
    ):
        with pytest.raises(ConfigError, match=said):
            _schema_with(monkeypatch, kind(model="colours"))


def test_every_column_has_one_type_in_sql_and_in_arrow():
    for spec in SCHEMA.specs.values():
        arrow = arrow_schema(spec.columns)
        assert arrow.names == list(spec.column_names)
        for column, found in zip(spec.columns, arrow.types, strict=True):
            if not column.sql_type.startswith("map<"):
                assert sql_type(found) == column.sql_type
    assert arrow_type("timestamp") == pa.timestamp("us", tz="UTC")
    assert arrow_type("map<string,bigint>") == pa.map_(pa.string(), pa.int64())


def test_the_statement_that_creates_a_table_holds_every_column_comment_and_constraint():
    spec = content_table(Colours(model="colours"))
    said = create_statement(spec, "`t`")
    for column in spec.columns:
        assert f"`{column.name}` {column.sql_type}" in said and literal(column.comment) in said
    assert all(f"'delta.constraints.{name}'" in said for name in spec.constraints)
