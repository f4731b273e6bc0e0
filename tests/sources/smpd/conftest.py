"""A handmade SMPD folder, every value of which a test may change before it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FILES = {
    "category": ("Category", "Subcategory", "Concept"),
    "text": ("Title", "Tile", "Mediatype", "Alltags"),
    "temporalspatial_information": ("Postdate", "Latitude", "Longitude", "Geoaccuracy"),
    "additional_information": ("Pathalias", "Ispublic", "Mediastatus"),
}

USER_FIELDS = (
    "photo_firstdate",
    "photo_count",
    "ispro",
    "canbuypro",
    "photo_firstdatetaken",
    "timezone_offset",
    "user_description",
    "location_description",
)


def make_post(number: int, **changes: Any) -> dict[str, Any]:
    """Return one post as the files state it; the user record is all that is in no other file."""
    stated = {
        "Pid": str(number),
        "Uid": f"{number}@N01",
        "Category": "Whether&Season",
        "Subcategory": "Snow",
        "Concept": "snowman",
        "Title": f"Title {number}",
        "Mediatype": "photo",
        "Alltags": "cold white",
        "Postdate": str(1_425_168_000 + number),
        "Latitude": "0",
        "Longitude": "",
        "Geoaccuracy": "0",
        "Pathalias": f"alias{number}",
        "Ispublic": "1",
        "Mediastatus": "ready",
        "photo_count": str(10 * number),
        "path": f"train/{number}@N01/{number}.jpg",
        "label": f"{number}.50",
    } | changes
    zone = {} if "timezone_timezone_id" in stated else {"timezone_id": "None"}
    return dict.fromkeys(USER_FIELDS, "None") | zone | stated


class SmpdFolder:
    """A folder to which halves are written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(
        self, *posts: dict[str, Any], split: str = "train", columns: tuple[str, ...] = (), inner: str | None = None
    ) -> SmpdFolder:
        """Write one half; the files named in `columns` become objects of columns."""
        folder = self.path / (f"{split}_allmetadata_json" if inner is None else inner)
        folder.mkdir(parents=True, exist_ok=True)
        in_files = {name for names in FILES.values() for name in names} | {"path", "label"}
        for name, wanted in FILES.items():
            records = [{key: post[key] for key in ("Uid", "Pid", *wanted) if key in post} for post in posts]
            self.dump(folder / f"{split}_{name}.json", records, name in columns)
        users = [{key: value for key, value in post.items() if key not in in_files} for post in posts]
        self.dump(folder / f"{split}_user_data.json", users, "user_data" in columns)
        (folder / f"{split}_img_filepath.txt").write_text("".join(f"{post['path']}\n" for post in posts), newline="")
        if split == "train":
            (folder / "train_label.txt").write_text("".join(f"{post['label']}\n" for post in posts))
        return self

    @staticmethod
    def dump(path: Path, records: list[dict[str, Any]], columns: bool) -> None:
        value: Any = records
        if columns:
            value = {name: {str(row): post[name] for row, post in enumerate(records)} for name in records[0]}
        path.write_text(json.dumps(value))

    def file(self, name: str, split: str = "train") -> Path:
        return self.path / f"{split}_allmetadata_json" / f"{split}_{name}"


@pytest.fixture
def folder(tmp_path: Path) -> SmpdFolder:
    """An SMPD folder with nothing in it yet."""
    return SmpdFolder(tmp_path / "posts")


@pytest.fixture
def post() -> Callable[..., dict[str, Any]]:
    """Make a post from its number and changes."""
    return make_post
