"""The names of what boosters read, and which column is behind each."""

from __future__ import annotations

from smp_features.model import encoders


def test_every_column_has_a_source():
    assert encoders.source_of("title_embedding_adapted_pca_3") == "title_embedding"
    assert encoders.source_of("has_image_embedding") == "image_embedding"
    assert encoders.source_of("has_place") == "has_place"
    assert encoders.source_of("concept_target") == "concept"
    assert encoders.source_of("tag_buckets_svd_11") == "tag_buckets"
    assert encoders.source_of("adapter_score") == "adapter_score"
