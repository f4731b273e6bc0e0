"""The ordinary SMPD reader takes a generated folder as it is, and never needs the truth beside it."""

from pathlib import Path

import pytest

from smp_features.config import SourceConfig
from smp_features.demo.generate import generate
from smp_features.demo.population import draw
from smp_features.sources.smpd import SmpdSource
from smp_features.sources.smpd.user_data import FORM_DEPENDENT

POSTS, SEED = 400, 5


def _read(folder: Path, spill: Path) -> tuple[list[dict], SmpdSource]:
    (folder / "truth.json").unlink()
    (folder / "generated.json").unlink()
    spill.mkdir()
    source = SmpdSource(SourceConfig(path=str(folder)), spill)
    return [row for split in ("train", "test") for row in source.rows(split)], source


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[dict], SmpdSource]]:
    place = tmp_path_factory.mktemp("read")
    return {
        form: _read(generate(POSTS, place / form, SEED, form).out, place / f"spill-{form}")
        for form in ("records", "columns")
    }


def test_every_post_is_read_as_it_was_drawn(read: dict) -> None:
    users, drawn = draw(POSTS, SEED)
    rows = read["records"][0]
    assert [row["pid"] for row in rows] == [str(pid) for pid in drawn.pid]
    assert [row["event_ts"] // 1_000_000 for row in rows] == drawn.event_time.tolist()
    assert [row["photo_count"] for row in rows] == users.photo_count[drawn.user].tolist()
    assert [row["is_pro"] for row in rows] == (users.is_pro[drawn.user] == 1).tolist()
    assert [row["popularity"] is None for row in rows] == [row["split"] == "test" for row in rows]
    assert [row["latitude"] is not None for row in rows] == drawn.has_place.tolist()


def test_both_user_data_forms_are_read_alike_where_both_can_say_it(read: dict) -> None:
    records, columns = (
        [{name: value for name, value in row.items() if name not in FORM_DEPENDENT} for row in read[form][0]]
        for form in ("records", "columns")
    )
    assert records == columns
    assert read["records"][1].details("train") == "user_data is a list of records"
    assert read["columns"][1].details("train") == "user_data is a object of columns"


def test_the_planted_quirks_are_the_readers_quirks(read: dict) -> None:
    quirks = read["records"][1].quirks
    for name in (
        "titles under the key Tile",
        "empty titles",
        "posts without a place",
        "posts without an alias",
        "rows with a Pid that is a number",
        "image paths in quotes",
    ):
        assert quirks[name] > 0, name


def test_profiles_are_read_once_per_alias(read: dict) -> None:
    aliases = [row["alias"] for row in read["records"][1].external_profiles()]
    assert len(aliases) == len(set(aliases))
    assert {row["path_alias"] for row in read["records"][0]} & set(aliases)
