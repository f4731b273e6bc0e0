"""A lake of the previous version is refused in one line, and migrated without computing anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from extraction_bench import Bench
from pyspark.sql import Column
from pyspark.sql import functions as F

from smp_features.config import read_models
from smp_features.errors import StageError, UsageError
from smp_features.extraction import retry
from smp_features.extractors import build_extractors
from smp_features.extractors.base import fingerprint_of
from smp_features.lake.migration import CONTENT, identity_in, migrate, new_fingerprints
from smp_features.lake.tables import Lakehouse
from smp_features.stages import run_stage
from smp_features.status import errors_of, status_of

# As the previous version wrote them for the bundled language model.
OLD_PERPLEXITY = "20f1b3491717302f"
OLD_DESCRIPTION = {
    "characters_per_token": 32, "dtype": "float32", "extractor": "perplexity", "family": "gpt2", "max_tokens": 256,
    "model": "zoo:language", "start_token": "bos, else eos", "version": 1,
}  # fmt: skip


def test_fingerprints_of_the_previous_version_become_those_of_this_one():
    built = build_extractors(read_models({})).values()
    # What people are told of a folder's model has not changed but for the version, and was hashed whole.
    described = {fingerprint_of(said): said for each in built if (said := {**each.description(), "version": 1})}
    assert OLD_PERPLEXITY in described
    assert described[OLD_PERPLEXITY].items() >= OLD_DESCRIPTION.items()
    expected = {fingerprint_of({**each.identity(), "version": 1}) for each in built}
    assert set(new_fingerprints(described).values()) == expected


def test_of_a_hub_model_the_commit_stays_and_of_a_tag_the_digest():
    hub = {"extractor": "perplexity", "model": "gpt2", "revision": "607a", "dtype": "float32"}
    assert identity_in(hub) == {"extractor": "perplexity", "revision": "607a", "dtype": "float32"}
    tag = {"model": "timm/x", "revision": None, "tag": "openai", "architecture": "ViT-B-32-quickgelu", "weights": "d1"}
    assert identity_in(tag) == {"architecture": "ViT-B-32-quickgelu", "weights": "d1"}


def test_a_fingerprint_that_is_not_its_descriptions_is_left_alone_and_so_is_a_new_one():
    new = fingerprint_of({"extractor": "caption"})
    assert new_fingerprints({"feedfacefeedface": {"model": "a", "extractor": "caption"}}) == {}
    assert new_fingerprints({new: {"model": "a", "extractor": "caption"}}) == {}


def _as_before(bench: Bench) -> None:
    """Take the layout out of the log of tables that nobody has read yet."""
    for log in Path(bench.config.root, "tables").glob("*/_delta_log"):
        for checksum in log.glob("*.crc"):
            checksum.unlink()
        for commit in log.glob("*.json"):
            _, *actions = commit.read_text().splitlines()  # the first only tells of the commit
            text = re.sub(r',"smp\.layout":"2"|"smp\.layout":"2",', "", "\n".join(actions))
            assert "smp.layout" not in text
            commit.write_text(text + "\n")


def _name_in_fingerprints(bench: Bench, label: str, *tables: str) -> None:
    """Give rows the fingerprints by which the previous version would have written them."""
    described = {each.fingerprint: {"model": label, **each.description()} for each in bench.extractors.values()}
    olds = _looked_up({new: fingerprint_of(description) for new, description in described.items()})
    words = _looked_up({new: json.dumps(description) for new, description in described.items()})
    for table in tables:
        changed = {"extractor": olds} | ({"description": words} if table == "extractors" else {})
        bench.lakehouse.update(table, F.col("extractor").isin(*described), changed)


def _looked_up(values: dict[str, str]) -> Column:
    return F.create_map(*(F.lit(each) for pair in values.items() for each in pair))[F.col("extractor")]


OLD = (*CONTENT, "attempts", "extractors")


def _content(bench: Bench) -> dict[str, list]:
    return {table: bench.rows(table) for table in OLD if table != "extractors"}


def test_an_older_lake_is_refused_with_the_command_that_migrates_it_after_which_nothing_is_left_to_do(
    bench, monkeypatch
):
    _as_before(bench)
    bench.post(("red cat", "my cat"), (None, "oom 1"), (None, "refused 1"))
    bench.configure(max_attempts=1)
    bench.extract()
    content, log = _content(bench), bench.log()
    _name_in_fingerprints(bench, "my-folder", *OLD)
    assert _content(bench) != content
    session, config, versions = bench.lakehouse.session, bench.config, bench.versions()

    for command in (
        lambda: run_stage(session, config, "extract"),
        lambda: run_stage(session, config, "features"),
        lambda: status_of(session, config),
        lambda: errors_of(session, config),
        lambda: retry(session, config, "caption", run="r"),
    ):
        with pytest.raises(UsageError, match=r"written by an earlier version .* Run `smp migrate`") as caught:
            command()
        assert caught.value.exit_status == 2
    assert bench.versions() == versions

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patched:  # the new rows are there, the old descriptions too
        patched.setattr(Lakehouse, "delete", die)
        with pytest.raises(Killed):
            migrate(session, config)
    with pytest.raises(UsageError, match="smp migrate"):
        status_of(session, config)
    assert "all extracted content stays" in migrate(session, config)

    assert _content(bench) == content
    assert {row[0] for row in bench.rows("extractors", "extractor")} == {
        each.fingerprint for each in bench.extractors.values()
    }
    again = bench.extract()
    assert {summary.outcome for summary in again.values()} == {"nothing_to_do"}
    assert bench.log() == log  # no model was even looked at
    rows = {row["stage"]: row for row in status_of(session, config)}
    assert (rows["extract/clip_text"]["ok"], rows["extract/clip_text"]["given_up"]) == (2, 1)
    versions = bench.versions()
    assert migrate(session, config).endswith("nothing to do.")
    assert bench.versions() == versions


def test_of_one_model_that_had_two_names_each_content_keeps_one_row_the_usable_one(bench):
    _as_before(bench)
    bench.post((None, "first"), (None, "second"))
    bench.extract("perplexity")
    content = bench.rows("perplexities")
    _name_in_fingerprints(bench, "a", "perplexities", "extractors")
    failed = {"status": F.lit("model_error"), "log_perplexity": F.lit(None)}
    bench.lakehouse.update("perplexities", F.col("text_key") == content[0][1], failed)
    bench.extract("perplexity")  # computed again, as a renamed folder was
    _name_in_fingerprints(bench, "b", "perplexities", "extractors")
    assert len(bench.rows("perplexities")) == 4
    migrate(bench.lakehouse.session, bench.config)
    assert bench.rows("perplexities") == content
    assert len(bench.rows("extractors")) == 1


def test_where_there_are_no_tables_there_is_nothing_to_migrate(spark, config):
    with pytest.raises(StageError, match="There are no tables under"):
        migrate(spark, config)


def test_a_lake_of_a_later_version_is_refused(bench):
    _as_before(bench)
    named = "ALTER TABLE {} SET TBLPROPERTIES ('smp.layout' = '3')"
    bench.lakehouse.session.sql(named.format(bench.lakehouse.identifier("extractors")))
    with pytest.raises(UsageError, match="written by a later version"):
        status_of(bench.lakehouse.session, bench.config)
    with pytest.raises(UsageError, match="written by a later version"):
        migrate(bench.lakehouse.session, bench.config)
