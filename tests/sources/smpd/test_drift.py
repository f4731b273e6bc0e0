"""A field that every record lacks, or has as something else, is refused by name; single odd values are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.sources.smpd import SmpdSource
from smp_features.sources.smpd.drift import KNOWN

MakePost = Callable[..., dict[str, Any]]
FILES = {
    "category": "category",
    "text": "text",
    "temporalspatial": "temporalspatial_information",
    "additional": "additional_information",
    "user_data": "user_data",
}
FIELDS = [(about, names[0]) for about, known in KNOWN.items() for names in known]


def source(folder: Any, **settings: Any) -> SmpdSource:
    return SmpdSource(SourceConfig(path=str(folder.path), **settings), folder.path)


def change(folder: Any, about: str, changed: Callable[[dict[str, Any]], dict[str, Any]], columns: bool) -> None:
    path = folder.file(f"{FILES[about]}.json")
    folder.dump(path, [changed(record) for record in json.loads(path.read_text())], columns)


def renamed(field: str, to: str | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: {
        to if name == field else name: value for name, value in record.items() if to or name != field
    }


@pytest.fixture
def posts(folder: Any, post: MakePost) -> Any:
    stated = {"Latitude": "48.2", "Longitude": "16.4", "Geoaccuracy": "16", "photo_firstdate": "1104537600"}
    stated |= {"ispro": "1", "canbuypro": "0", "photo_firstdatetaken": "2004", "timezone_offset": "+01:00"}
    stated |= {"timezone_id": "Vienna", "user_description": "I like snow", "location_description": "Wien"}
    return folder.write(*(post(n, **stated) for n in (1, 2, 3)))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(("about", "field"), FIELDS)
def test_a_field_renamed_in_every_record_is_refused_and_the_nearest_named(
    posts: Any, about: str, field: str, columns: bool
) -> None:
    change(posts, about, renamed(field, f"{field}s"), columns)
    with pytest.raises(SourceError) as refused:
        list(source(posts).rows("train"))
    said = str(refused.value)
    assert f"train_{FILES[about]}.json: no record has {field}; not known are {field.lower()}s." in said
    assert f"Did you mean '{field.lower()}s'?" in said and "--allow-removal" in said


@pytest.mark.parametrize(("about", "field"), [pair for pair in FIELDS if pair[1] != "Postdate"])
def test_a_field_that_no_record_has_is_refused_unless_the_source_never_had_it(
    posts: Any, about: str, field: str
) -> None:
    change(posts, about, renamed(field, None), False)
    with pytest.raises(SourceError, match=rf"no record has {field}\. .*source\.without=\[{field}\]"):
        list(source(posts).rows("train"))
    for settings in ({"without": (field,)}, {"allow_removal": True}):
        assert len(list(source(posts, **settings).rows("train"))) == 3


def test_a_field_that_some_records_lack_is_missing_there(posts: Any) -> None:
    change(posts, "text", lambda record: renamed("Title", None)(record) if record["Pid"] == "2" else record, False)
    assert [row["title"] for row in source(posts).rows("train") if isinstance(row, dict)] == ["Title 1", "", "Title 3"]


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(
    ("about", "field", "value"),
    [
        ("text", "Title", {"_content": "a title"}),
        ("text", "Title", 2012),
        ("text", "Alltags", {"tag": ["dog"]}),
        ("category", "Category", 7),
        ("category", "Concept", True),
        ("temporalspatial", "Latitude", "48,2"),
        ("additional", "Ispublic", "ready"),
        ("user_data", "photo_count", {"_content": 10}),
        ("user_data", "photo_count", "many"),
        ("user_data", "photo_firstdate", "2004-12-31"),
        ("user_data", "timezone_offset", "one hour"),
        ("user_data", "location_description", {"_content": "Wien"}),
    ],
)
def test_a_field_retyped_in_every_record_is_refused_and_in_one_it_is_counted(
    posts: Any, about: str, field: str, value: object, columns: bool
) -> None:
    change(posts, about, lambda record: record | {field: value} if record["Pid"] == "2" else record, columns)
    once = source(posts)
    assert len([row for row in once.rows("train") if isinstance(row, dict)]) == 3
    assert sum(count for name, count in once.quirks.items() if name.startswith(f"{field} that is ")) == 1
    change_all = posts.file(f"{FILES[about]}.json")
    stated = json.loads(change_all.read_text())
    if columns:
        stated[field] = dict.fromkeys(stated[field], value)
    else:
        stated = [record | {field: value} for record in stated]
    change_all.write_text(json.dumps(stated))
    with pytest.raises(SourceError, match=rf"train_{FILES[about]}\.json: {field} is .* wherever it is stated, in 3"):
        list(source(posts).rows("train"))


def test_lists_of_tags_and_numbers_as_numbers_are_no_drift(posts: Any) -> None:
    change(posts, "text", lambda record: record | {"Alltags": ["dog", "big cat", 7, None]}, False)
    change(posts, "user_data", lambda record: record | {"photo_count": 10, "ispro": True}, False)
    read = source(posts)
    assert {row["tags"] for row in read.rows("train") if isinstance(row, dict)} == {"dog big cat 7"}
    assert read.quirks["Alltags that is a list"] == 3


def test_unknown_fields_beside_the_known_ones_are_counted(posts: Any) -> None:
    change(posts, "category", lambda record: record | {"License": 4}, False)
    read = source(posts)
    assert len(list(read.rows("train"))) == 3
    assert read.quirks["records of category with the unknown field license"] == 3
