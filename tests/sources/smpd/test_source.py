"""An SMPD folder is read row by row with every quirk of the real files, and refused where its rows do not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.sources.base import ImageRoot, Refusal, Split
from smp_features.sources.smpd import SmpdSource
from smp_features.sources.smpd.user_data import FORM_DEPENDENT

MakePost = Callable[..., dict[str, Any]]


def source(folder: Any, limit: int | None = None) -> SmpdSource:
    return SmpdSource(SourceConfig(path=str(folder.path), limit=limit), folder.path)


def rows(folder: Any, split: Split = "train", limit: int | None = None) -> list[Any]:
    return list(source(folder, limit).rows(split))


def test_a_post_is_put_together_from_all_files(folder: Any, post: MakePost) -> None:
    (row,) = rows(folder.write(post(4)))
    assert row["pid"] == "4" and row["uid"] == "4@N01" and row["source_row"] == "train:1"
    assert row["event_ts"] == 1_425_168_004_000_000
    assert (row["title"], row["tags"], row["media_type"]) == ("Title 4", "cold white", "photo")
    assert (row["category"], row["subcategory"], row["concept"]) == ("Whether&Season", "Snow", "snowman")
    assert (row["path_alias"], row["is_public"], row["media_status"]) == ("alias4", True, "ready")
    assert (row["latitude"], row["longitude"], row["geo_accuracy"]) == (None, None, None)
    assert (row["image_path"], row["popularity"], row["photo_count"]) == ("train/4@N01/4.jpg", 4.5, 40)


def test_test_posts_have_no_label(folder: Any, post: MakePost) -> None:
    folder.write(post(1, path="test/1.jpg"), split="test")
    assert source(folder).splits == ("test",)
    assert rows(folder, "test")[0]["popularity"] is None


def test_ids_are_the_same_as_text_or_number(folder: Any, post: MakePost) -> None:
    folder.write(post(1))
    records = json.loads(folder.file("text.json").read_text())
    folder.file("text.json").write_text(json.dumps([record | {"Pid": 1} for record in records]))
    (row,) = rows(folder)
    assert row["pid"] == "1"


def test_the_misspelt_key_of_the_title_is_read(folder: Any, post: MakePost) -> None:
    misspelt = post(1, Tile="found")
    del misspelt["Title"]
    smpd = source(folder.write(misspelt, post(2, Title="")))
    assert [row["title"] for row in smpd.rows("train") if isinstance(row, dict)] == ["found", ""]
    assert smpd.quirks["titles under the key Tile"] == 1 and smpd.quirks["empty titles"] == 1


@pytest.mark.parametrize("alias", ["None", "", None, "null"])
def test_the_alias_none_is_null(folder: Any, post: MakePost, alias: str | None) -> None:
    assert rows(folder.write(post(1, Pathalias=alias)))[0]["path_alias"] is None


@pytest.mark.parametrize("line", ['"train/1.jpg"', "train/1.jpg\r", "'train/1.jpg'\r", ' "train/1.jpg" '])
def test_quotes_and_carriage_returns_around_paths_are_dropped(folder: Any, post: MakePost, line: str) -> None:
    assert rows(folder.write(post(1, path=line)))[0]["image_path"] == "train/1.jpg"


def test_older_names_are_read(folder: Any, post: MakePost) -> None:
    folder.write(post(1))
    expected = rows(folder)
    for new, old in (
        ("text.json", "tags.json"),
        ("temporalspatial_information.json", "temporalspatial.json"),
        ("additional_information.json", "additional.json"),
        ("user_data.json", "userdata.json"),
        ("img_filepath.txt", "img_path.txt"),
    ):
        folder.file(new).rename(folder.file(old))
    assert rows(folder) == expected


def test_files_may_lie_in_the_folder_itself(folder: Any, post: MakePost) -> None:
    assert rows(folder.write(post(1), inner="."))[0]["pid"] == "1"


@pytest.mark.parametrize("missing", ["text.json", "user_data.json", "label.txt", "img_filepath.txt"])
def test_a_missing_file_is_refused_by_name(folder: Any, post: MakePost, missing: str) -> None:
    folder.write(post(1)).file(missing).unlink()
    with pytest.raises(SourceError, match=f"has no train_{missing}"):
        source(folder).check()


def test_a_missing_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        SmpdSource(SourceConfig(path=str(tmp_path / "nowhere")), tmp_path).check()
    with pytest.raises(SourceError, match="no posts in the SMPD layout"):
        SmpdSource(SourceConfig(path=str(tmp_path)), tmp_path).check()


def test_both_forms_of_user_data_give_the_same_rows_in_what_both_can_express(folder: Any, post: MakePost) -> None:
    shared = {"photo_firstdate": "1104537600", "ispro": "1", "canbuypro": "0", "photo_firstdatetaken": "2004"}
    vectors = {"user_description": ",".join(["0.5"] * 399), "location_description": ",".join(["0.5"] * 400)}
    codes = {"timezone_offset": "53", "timezone_timezone_id": "12"}
    texts = {"user_description": "snow", "location_description": "Oslo"}
    names = {"timezone_offset": "+01:00", "timezone_id": "Oslo"}
    form_a = rows(folder.write(*(post(n, **shared, **vectors, **codes) for n in range(1, 4))))
    form_b = rows(folder.write(*(post(n, **shared, **texts, **names) for n in range(1, 4)), columns=("user_data",)))
    assert len(form_a) == 3
    for a, b in zip(form_a, form_b, strict=True):
        assert {key: a[key] for key in a if key not in FORM_DEPENDENT} == {
            key: b[key] for key in b if key not in FORM_DEPENDENT
        }


def test_every_json_file_may_be_an_object_of_columns(folder: Any, post: MakePost) -> None:
    expected = rows(folder.write(post(1), post(2)))
    every = ("category", "text", "temporalspatial_information", "additional_information", "user_data")
    assert rows(folder.write(post(1), post(2), columns=every)) == expected


def test_a_list_of_records_with_form_b_fields_is_read(folder: Any, post: MakePost) -> None:
    mixed = post(1, timezone_offset="None", timezone_id="None", user_description="None", location_description="USA")
    row = rows(folder.write(mixed))[0]
    assert row["location"] == "USA" and row["description"] is None and row["photo_count"] == 10


def test_user_data_in_neither_container_is_refused(folder: Any, post: MakePost) -> None:
    folder.write(post(1)).file("user_data.json").write_text('{"Uid": "1@N01", "Pid": "1"}')
    with pytest.raises(SourceError, match=r"train_user_data\.json:1: .*neither a list of records nor an object"):
        rows(folder)


@pytest.mark.parametrize("columns", [(), ("user_data",)])
@pytest.mark.parametrize("name", ["category.json", "user_data.json"])
def test_misaligned_rows_are_refused_with_file_and_record(
    folder: Any, post: MakePost, name: str, columns: tuple[str, ...]
) -> None:
    folder.write(post(1), post(2), post(3))
    folder.write(post(1), post(3), post(2), inner="swapped", columns=columns)
    (folder.path / "swapped" / f"train_{name}").rename(folder.file(name))
    with pytest.raises(SourceError, match=r"record 2 .*has Pid 2|record 2 has Pid 3, but record 2") as refused:
        rows(folder)
    assert f"train_{name}" in refused.value.message


def test_rows_of_another_user_are_refused(folder: Any, post: MakePost) -> None:
    folder.write(post(1, Uid="9@N09")).file("additional_information.json").rename(folder.path / "kept")
    folder.write(post(1))
    (folder.path / "kept").rename(folder.file("additional_information.json"))
    with pytest.raises(SourceError, match=r"additional_information\.json: record 1 has Uid 9@N09"):
        rows(folder)


def test_records_without_any_id_are_refused(folder: Any, post: MakePost) -> None:
    folder.write(post(1)).file("category.json").write_text('[{"Category": "Animal"}]')
    with pytest.raises(SourceError, match=r"train_category\.json: record 1 has neither Pid nor Uid"):
        rows(folder)


@pytest.mark.parametrize("name", ["label.txt", "img_filepath.txt"])
@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: [*lines, lines[-1]]])
def test_files_of_different_lengths_are_refused_with_their_counts(
    folder: Any, post: MakePost, name: str, change: Callable[[list[str]], list[str]]
) -> None:
    path = folder.write(post(1), post(2), post(3)).file(name)
    lines = change(path.read_text().splitlines(keepends=True))
    path.write_text("".join(lines))
    with pytest.raises(SourceError, match=f"train_{name}: the files have different numbers of rows") as refused:
        rows(folder)
    assert f"train_{name} {len(lines)}" in refused.value.message
    assert "train_text.json 3" in refused.value.message


def test_blank_lines_at_the_end_are_no_rows_but_blank_labels_are(folder: Any, post: MakePost) -> None:
    folder.write(post(1), post(2, label=""))
    for name in ("label.txt", "img_filepath.txt"):
        with folder.file(name).open("a") as file:
            file.write("\n\r\n")
    first, second = rows(folder)
    assert first["popularity"] == 1.5
    assert isinstance(second, Refusal) and second.reason == "bad_label"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Pid": ""}, "no_pid"),
        ({"Pid": None}, "no_pid"),
        ({"Uid": "None"}, "no_uid"),
        ({"Postdate": "0"}, "bad_time"),
        ({"Postdate": -5}, "bad_time"),
        ({"Postdate": "99999999999"}, "bad_time"),
        ({"Postdate": "yesterday"}, "bad_time"),
        ({"label": "nan"}, "bad_label"),
        ({"label": "much"}, "bad_label"),
    ],
)
def test_a_row_that_cannot_be_a_post_is_refused_alone(
    folder: Any, post: MakePost, changes: dict[str, Any], reason: str
) -> None:
    first, refused, last = rows(folder.write(post(1), post(2, **changes), post(3)))
    assert (first["pid"], last["pid"]) == ("1", "3")
    assert isinstance(refused, Refusal) and (refused.reason, refused.source_row) == (reason, "train:2")


def test_a_pid_that_one_file_leaves_empty_is_refused_and_not_guessed(folder: Any, post: MakePost) -> None:
    folder.write(post(1))
    records = json.loads(folder.file("text.json").read_text())
    folder.file("text.json").write_text(json.dumps([record | {"Pid": None} for record in records]))
    assert rows(folder)[0].reason == "no_pid"


@pytest.mark.parametrize("columns", [(), ("user_data",)])
def test_a_limit_reads_the_first_rows_only(folder: Any, post: MakePost, columns: tuple[str, ...]) -> None:
    folder.write(*(post(n) for n in range(1, 10)), columns=columns)
    assert [row["pid"] for row in rows(folder, limit=4)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "place", ["train", "images/train", "SMP_train_images", "SMP_train_images/train"], ids=lambda place: place
)
def test_images_are_found_wherever_they_were_unpacked(folder: Any, post: MakePost, place: str) -> None:
    folder.write(post(1))
    (folder.path / place / "1@N01").mkdir(parents=True)
    (folder.path / place / "1@N01" / "1.jpg").write_bytes(b"x")
    root = source(folder).image_root("train")
    assert root == ImageRoot(folder.path / place, "train")
    assert (root.folder / root.relative("train/1@N01/1.jpg")).is_file()


def test_images_below_a_folder_named_otherwise_are_found(folder: Any, post: MakePost) -> None:
    folder.write(post(1, path="half/1.jpg"))
    (folder.path / "images" / "half").mkdir(parents=True)
    (folder.path / "images" / "half" / "1.jpg").write_bytes(b"x")
    assert source(folder).image_root("train") == ImageRoot(folder.path / "images")
