"""Writes made-up posts as an SMPD folder, quirks of the real files included, one row at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from smp_features.demo import formula, titles
from smp_features.demo.population import Posts, Users
from smp_features.demo.vocabulary import (
    ALIAS_FIRST,
    ALIAS_SECOND,
    CATEGORIES,
    CATEGORY_NAMES,
    CONCEPT_ENDINGS,
    HOME_PLACES,
    PROFILE_LINES,
    TAG_WORDS,
    TIME_ZONES,
)

UserDataForm = Literal["records", "columns"]
Record = dict[str, object]

TITLE_STREAM, DETAIL_STREAM, PROFILE_STREAM = 3, 4, 5
DESCRIPTION_FLOATS, LOCATION_FLOATS = 399, 400
INTEGER_SHARE = 0.03  # of records in which a number is a number and not a string
MISSPELT_TITLE_SHARE = 0.02  # of records with the key Tile
QUOTED_PATH_SHARE = 0.01
CARRIAGE_RETURN_SHARE = 0.01
MISSING_PLACES = (("0", "", "0"), ("0", "", "0"), ("0", "", "0"), ("None", "None", "0"), (None, None, "0"))


class SmpdWriter:
    """Writes the data set's files under a folder; each value depends on the seed and the row alone.

    Args:
        out: The folder that becomes the data set.
        users: All users.
        posts: All posts.
        seed: Decides wording and quirks.
    """

    def __init__(self, out: Path, users: Users, posts: Posts, seed: int) -> None:
        self.out = out
        self.users = users
        self.posts = posts
        self.seed = seed

    def write_metadata(self, split: Literal["train", "test"], form: UserDataForm) -> None:
        """Write the metadata files of one half, all of them aligned by row; labels only for train."""
        folder = self.out / f"{split}_allmetadata_json"
        folder.mkdir(parents=True)
        rows = range(self.posts.train) if split == "train" else range(self.posts.train, len(self.posts))
        for name, record in (
            ("category", self._category),
            ("text", self._text),
            ("temporalspatial_information", self._temporalspatial),
            ("additional_information", self._additional),
        ):
            _write_records(folder / f"{split}_{name}.json", map(record, rows))
        self._write_paths(folder / f"{split}_img_filepath.txt", split, rows)
        if split == "train":
            scores = formula.score_of(self.posts.views[: self.posts.train])
            with (folder / "train_label.txt").open("w", encoding="utf-8") as lines:
                lines.writelines(f"{score:.2f}\n" for score in scores)
        path = folder / f"{split}_user_data.json"
        if form == "records":
            _write_records(path, map(self._user_record, rows))
        else:
            _write_columns(path, self._user_columns, rows)

    def image_path(self, row: int) -> Path:
        """Return where a row's image file goes."""
        split = "train" if row < self.posts.train else "test"
        return self.out / "images" / split / self._uid(row) / f"{self.posts.pid[row]}.jpg"

    def write_profiles(self) -> None:
        """Write user_additional.txt: alias and eight counts per user, taken at the crawl date, and a row named None."""
        own_views = np.bincount(self.posts.user, weights=self.posts.views, minlength=len(self.users.number))
        rng = np.random.default_rng([self.seed, PROFILE_STREAM])
        per_photo = np.exp(rng.normal(3.0, 0.8, len(own_views)))
        lines = ["None 81234567 5120 310 90211 40410 12001 45000 9100"]
        for user in np.flatnonzero(self.users.has_alias & self.users.in_additional):
            photos = int(self.users.photo_count[user] * rng.uniform(1.0, 1.6))
            counts = (
                int(own_views[user] + photos * per_photo[user]),
                photos * int(rng.integers(0, 12)),
                int(photos * rng.uniform(0, 0.5)),
                int(rng.integers(0, 3000)),
                int(photos * rng.uniform(0, 2)),
                photos,
                int(self.users.followers[user]),
                int(self.users.followings[user]),
            )
            lines.append(f"{self._alias(int(user))} " + " ".join(map(str, counts)))
        (self.out / "user_additional.txt").write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")

    def title(self, row: int) -> str:
        """Return a row's title; rows that share ``title_id`` share the text."""
        rng = np.random.default_rng([self.seed, TITLE_STREAM, int(self.posts.title_id[row])])
        kind = self.posts.title_kind[row]
        if kind == formula.EMPTY:
            return ""
        if kind == formula.CAMERA:
            return titles.camera_title(rng)
        if kind == formula.GIBBERISH:
            return titles.gibberish_title(rng)
        make = titles.consistent_title if kind == formula.CONSISTENT else titles.inconsistent_title
        text = make(self.posts.scene(row), rng)
        mark = rng.random()
        if mark < 0.01:
            return f"{text} \u2665"
        return f"{text} ??" if mark < 0.02 else text

    def _uid(self, row: int) -> str:
        number = int(self.users.number[self.posts.user[row]])
        return f"{number}@N{number * 7 % 90 + 10:02d}"

    def _alias(self, user: int) -> str:
        number = int(self.users.number[user])
        first, second = ALIAS_FIRST[number % len(ALIAS_FIRST)], ALIAS_SECOND[number // 5 % len(ALIAS_SECOND)]
        return f"{first}_{second}_{number}"

    def _detail(self, row: int, file: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, DETAIL_STREAM, file, row])

    def _record(self, row: int, rng: np.random.Generator) -> Record:
        return {"Uid": self._uid(row), "Pid": _number(self.posts.pid[row], rng)}

    def _category(self, row: int) -> Record:
        rng = self._detail(row, 0)
        category, subcategory, concept = self._topic(row)
        return self._record(row, rng) | {"Category": category, "Subcategory": subcategory, "Concept": concept}

    def _topic(self, row: int) -> tuple[str, str, str]:
        rng = self._detail(row, 1)
        category = CATEGORY_NAMES[self.posts.category[row]]
        subcategory = CATEGORIES[category][rng.integers(len(CATEGORIES[category]))]
        return category, subcategory, subcategory.lower() + CONCEPT_ENDINGS[rng.integers(len(CONCEPT_ENDINGS))]

    def _text(self, row: int) -> Record:
        rng = self._detail(row, 2)
        key = "Tile" if rng.random() < MISSPELT_TITLE_SHARE else "Title"
        tags = [self._topic(row)[2], *rng.choice(TAG_WORDS, size=rng.integers(0, 6), replace=False).tolist()]
        return self._record(row, rng) | {
            key: self.title(row),
            "Mediatype": "video" if rng.random() < 0.01 else "photo",
            "Alltags": "" if rng.random() < 0.1 else " ".join(tags),
        }

    def _temporalspatial(self, row: int) -> Record:
        rng = self._detail(row, 3)
        place = MISSING_PLACES[rng.integers(len(MISSING_PLACES))]
        if self.posts.has_place[row]:
            place = (f"{rng.uniform(-60, 70):.6f}", f"{rng.uniform(-180, 180):.6f}", str(rng.integers(1, 17)))
        return self._record(row, rng) | {
            "Postdate": _number(self.posts.event_time[row], rng),
            "Latitude": place[0],
            "Longitude": place[1],
            "Geoaccuracy": place[2],
        }

    def _additional(self, row: int) -> Record:
        rng = self._detail(row, 4)
        user = int(self.posts.user[row])
        return self._record(row, rng) | {
            "Pathalias": self._alias(user) if self.users.has_alias[user] else "None",
            "Ispublic": "1",
            "Mediastatus": "ready",
        }

    def _write_paths(self, path: Path, split: str, rows: range) -> None:
        with path.open("w", encoding="utf-8", newline="") as lines:
            for row in rows:
                rng = self._detail(row, 5)
                line = f"{split}/{self._uid(row)}/{self.posts.pid[row]}.jpg"
                if rng.random() < QUOTED_PATH_SHARE:
                    line = f'"{line}"'
                lines.write(line + ("\r\n" if rng.random() < CARRIAGE_RETURN_SHARE else "\n"))

    def _shared_user_fields(self, row: int) -> dict[str, str]:
        """Return what both forms of user_data can express, with the same values."""
        users, user = self.users, int(self.posts.user[row])
        return {
            "photo_firstdate": "None" if users.first_date_hidden[user] else str(users.first_date[user]),
            "photo_count": str(users.photo_count[user]),
            "ispro": str(users.is_pro[user]),
            "canbuypro": str(users.can_buy_pro[user]),
            "photo_firstdatetaken": str(users.first_date_taken[user]),
        }

    def _user_record(self, row: int) -> Record:
        """Return a record of schema A: vectors as text, integer codes for the time zone."""
        rng = self._detail(row, 6)
        user = int(self.posts.user[row])
        zone = int(self.users.time_zone[user])
        profile = np.random.default_rng([self.seed, PROFILE_STREAM, user])
        full = bool(self.users.has_profile_text[user])
        return (
            self._record(row, rng)
            | self._shared_user_fields(row)
            | {
                "timezone_offset": str(TIME_ZONES[zone][2] + 48),
                "timezone_timezone_id": str(zone),
                "user_description": _vector_text(profile, DESCRIPTION_FLOATS, full),
                "location_description": _vector_text(profile, LOCATION_FLOATS, full),
            }
        )

    def _user_columns(self, row: int) -> Record:
        """Return the values of one row of schema B: raw profile text, named time zones."""
        rng = self._detail(row, 6)
        user = int(self.posts.user[row])
        zone = TIME_ZONES[self.users.time_zone[user]]
        profile = np.random.default_rng([self.seed, PROFILE_STREAM, user])
        text = PROFILE_LINES[profile.integers(len(PROFILE_LINES))] if self.users.has_profile_text[user] else ""
        return (
            self._record(row, rng)
            | self._shared_user_fields(row)
            | {
                "timezone_offset": zone[1],
                "timezone_id": zone[0],
                "user_description": text,
                "location_description": HOME_PLACES[profile.integers(len(HOME_PLACES))],
            }
        )


def _number(value: np.int64, rng: np.random.Generator) -> int | str:
    return int(value) if rng.random() < INTEGER_SHARE else str(value)


def _vector_text(profile: np.random.Generator, length: int, full: bool) -> str:
    if full:
        return ",".join(f"{value:.3f}" for value in profile.normal(0, 0.1, length))
    return "\n" if profile.random() < 0.5 else ",".join(["0.0"] * length)


def _write_records(path: Path, records: Iterator[Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for position, record in enumerate(records):
            file.write((", " if position else "") + json.dumps(record))
        file.write("]\n")


def _write_columns(path: Path, record: Callable[[int], Record], rows: range) -> None:
    """Write one object per column, each keyed by row number; a pass over the rows per column keeps memory flat."""
    names = list(record(rows[0]))
    with path.open("w", encoding="utf-8") as file:
        file.write("{")
        for place, name in enumerate(names):
            file.write((", " if place else "") + json.dumps(name) + ": {")
            for position, row in enumerate(rows):
                file.write((", " if position else "") + f'"{position}": ' + json.dumps(record(row)[name]))
            file.write("}")
        file.write("}\n")
