"""An SMPD folder without pictures, as large as the challenge's, in both containers and with both profile vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

USERS = 5_000
DESCRIPTION_FLOATS, LOCATION_FLOATS = 399, 400
FIRST_POST_S = 1_425_168_000
SECONDS_BETWEEN = 60
WORDS = ("snow", "harbour", "red", "morning", "street", "cat", "mountain", "old", "light", "river", "winter", "train")
TOPICS = (("Animal", "dog", "puppy"), ("Travel&Active&Sports", "trekking", "trail"), ("Food", "dessert", "cake"))

Record = dict[str, object]


def write_posts(folder: Path, train: int, test: int, seed: int = 7) -> None:
    """Write a half in each container: train as lists of records, test as objects of columns.

    Args:
        folder: A new folder.
        train: Posts with a label.
        test: Later posts without one.
        seed: Decides titles, labels and vectors.
    """
    vectors = _vectors(seed)
    for split, rows, write in (
        ("train", range(train), _write_records),
        ("test", range(train, train + test), _write_columns),
    ):
        meta = folder / f"{split}_allmetadata_json"
        meta.mkdir(parents=True)
        for name, record in (
            ("category", _category),
            ("text", _text),
            ("temporalspatial_information", _place),
            ("additional_information", _additional),
        ):
            write(meta / f"{split}_{name}.json", rows, record)
        write(meta / f"{split}_user_data.json", rows, lambda row: _user(row, vectors))
        _write_lines(meta / f"{split}_img_filepath.txt", (f"{split}/{_uid(row)}/{_pid(row)}.jpg" for row in rows))
        if split == "train":
            _write_lines(meta / "train_label.txt", (f"{row * 37 % 1500 / 100:.2f}" for row in rows))
    _write_lines(folder / "user_additional.txt", (f"alias{user} 1 2 3 4 5 6 7 {user}" for user in range(USERS)))


def _vectors(seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)

    def text(size: int) -> str:
        return ",".join(f"{value:.6f}" for value in rng.normal(0, 0.1, size))

    return [(text(DESCRIPTION_FLOATS), text(LOCATION_FLOATS)) for _ in range(USERS)]


def _user_of(row: int) -> int:
    return row * 7919 % USERS


def _uid(row: int) -> str:
    return f"{_user_of(row)}@N01"


def _pid(row: int) -> str:
    return str(100_000 + row)


def _ids(row: int) -> Record:
    return {"Uid": _uid(row), "Pid": _pid(row)}


def _category(row: int) -> Record:
    return _ids(row) | dict(zip(("Category", "Subcategory", "Concept"), TOPICS[row % len(TOPICS)], strict=True))


def _text(row: int) -> Record:
    words = [WORDS[(row * step + step) % len(WORDS)] for step in (1, 5, 7, 11)]
    return _ids(row) | {"Title": f"{' '.join(words)} {row}", "Mediatype": "photo", "Alltags": " ".join(words[:3])}


def _place(row: int) -> Record:
    posted = str(FIRST_POST_S + row * SECONDS_BETWEEN)
    there = {"Latitude": "48.2", "Longitude": "16.4", "Geoaccuracy": "16"} if row % 4 == 0 else None
    return _ids(row) | {"Postdate": posted, **(there or {"Latitude": "0", "Longitude": "", "Geoaccuracy": "0"})}


def _additional(row: int) -> Record:
    return _ids(row) | {"Pathalias": f"alias{_user_of(row)}", "Ispublic": "1", "Mediastatus": "ready"}


def _user(row: int, vectors: list[tuple[str, str]]) -> Record:
    user = _user_of(row)
    return _ids(row) | {
        "photo_firstdate": "1104537600",
        "photo_count": str(user + row % 50),
        "ispro": str(user % 2),
        "canbuypro": "0",
        "timezone_offset": "53",
        "photo_firstdatetaken": "2004-12-31 10:00:00",
        "timezone_timezone_id": str(user % 40),
        "user_description": vectors[user][0],
        "location_description": vectors[user][1],
    }


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _write_records(path: Path, rows: range, record: Callable[[int], Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(("[" if row == rows[0] else ", ") + json.dumps(record(row)))
        file.write("]\n")


def _write_columns(path: Path, rows: range, record: Callable[[int], Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for place, name in enumerate(record(rows[0])):
            file.write(("{" if place == 0 else "}, ") + json.dumps(name) + ": {")
            for number, row in enumerate(rows):
                file.write((", " if number else "") + f'"{number}": {json.dumps(record(row)[name])}')
        file.write("}}\n")
