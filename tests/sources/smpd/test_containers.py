"""The same records give the same rows in every container, order, encoding and spelling of what is missing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.sources.base import Refusal
from smp_features.sources.smpd import SmpdSource
from smp_features.sources.smpd.drift import KNOWN

FILES = ("category", "text", "temporalspatial_information", "additional_information", "user_data")
ABOUT = dict(zip(KNOWN, FILES, strict=True))
MISSING = ("None", "", None, "null", float("nan"), float("inf"), "NaN")
TEXTS = (
    "snow", " a  b ", "caf\u00e9 \u2665", "\U0001f468\u200d\U0001f469", "a\0b", 'say "so", {[:]}\\n', "\u202eabc",
    "lone \ud83d one", "\udc00", "line\nbreak\r", "\ufeffmark", "0", "7.0", "1e3", "&quot;", "x" * 3000,
)  # fmt: skip
ODD = (7, 7.0, 2.5, 10**30, True, ["dog", 2, None, "big cat"], {"_content": "x"}, [])
"""Values of another JSON type than a field's."""


def value(draw: random.Random, usual: tuple[object, ...]) -> object:
    return draw.choice(draw.choice((usual, usual, usual, MISSING, ODD)))


def make_records(draw: random.Random, count: int) -> list[dict[str, dict[str, Any]]]:
    """Draw posts as records by what their file is about; the first is whole, so that no field is absent."""
    vector = ",".join(f"{number / 7:.3f}" for number in range(399))
    usual: dict[str, tuple[object, ...]] = {
        "Postdate": ("1425168000", 1_425_168_001, "1425168002.0"),
        "Latitude": ("48.2", 48.25, "0", "91"), "Longitude": ("16.4", -16, ""), "Geoaccuracy": ("16", 0, 17),
        "Ispublic": ("1", 0, "true"), "photo_firstdate": ("1104537600", 1_104_537_601),
        "photo_count": ("10", 11, "1,234"), "ispro": ("1", 0, False), "canbuypro": ("0", 1),
        "timezone_offset": ("+01:00", "53", 53, "-0330"), "user_description": (*TEXTS, vector),
        "location_description": (*TEXTS, [0.5] * 400),
    }  # fmt: skip
    posts = []
    for number in range(count):
        pid, uid = draw.choice((str(number), number, float(number))), f"{number % 3}@N0\ud83d"
        post = {}
        for about, known in KNOWN.items():
            names = [(draw.choice(each) if about == "text" else each[0]) for each in known]
            stated = {name: value(draw, usual.get(name, TEXTS)) for name in names}
            if about == "temporalspatial" and draw.random() < 0.9:
                stated["Postdate"] = draw.choice(usual["Postdate"])
            post[about] = {"Pid": pid, "Uid": uid, **stated}
        posts.append(post)
    posts[0]["text"]["Title"], posts[0]["temporalspatial"]["Postdate"] = "whole", "1425168000"
    return posts


def write(
    folder: Path,
    posts: list[dict[str, dict[str, Any]]],
    columns: Callable[[str], bool] = lambda about: False,
    encoding: str = "utf-8",
    ascii_only: bool = True,
    indent: int | None = None,
    line_end: str = "\n",
) -> list[Any]:
    """Write posts as a folder and return its rows."""
    meta = folder / "train_allmetadata_json"
    meta.mkdir(parents=True)
    for about, name in ABOUT.items():
        records: Any = [post[about] for post in posts]
        if columns(about):
            names = dict.fromkeys(name for record in records for name in record)
            records = {name: {str(n): record.get(name) for n, record in enumerate(records)} for name in names}
        content = json.dumps(records, ensure_ascii=ascii_only, indent=indent)
        (meta / f"train_{name}.json").write_bytes(content.replace("\n", line_end).encode(encoding))
    lines = [f"train/{int(post['text']['Pid'])}.jpg" for post in posts]
    (meta / "train_img_filepath.txt").write_bytes("".join(line + line_end for line in lines).encode(encoding))
    labels = [f"{number % 60}.25" for number in range(len(posts))]
    (meta / "train_label.txt").write_bytes("".join(line + line_end for line in labels).encode(encoding))
    settings = SourceConfig(path=str(folder), allow_removal=True)
    return [plain(row) for row in SmpdSource(settings, folder).rows("train")]


def plain(row: Any) -> Any:
    if isinstance(row, Refusal):
        return row
    return {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in row.items()}


def shuffled(draw: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    return dict(draw.sample(list(record.items()), len(record)))


def respelt(draw: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    def missing(each: object) -> bool:
        return any(each is known or each == known or (each != each and known != known) for known in MISSING)

    return {name: draw.choice(MISSING) if missing(each) else each for name, each in record.items()}


@pytest.mark.parametrize("seed", range(25))
def test_the_same_records_give_the_same_rows_however_they_are_written(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    posts = make_records(draw, 12)
    expected = write(tmp_path / "plain", posts)
    assert any(isinstance(row, dict) for row in expected)
    json.dumps(expected[0], ensure_ascii=False).encode()  # every text can be written
    mixed = draw.sample(sorted(KNOWN), 2)
    assert write(tmp_path / "columns", posts, lambda about: True) == expected
    assert write(tmp_path / "mixed", posts, lambda about: about in mixed, indent=1, line_end="\r\n") == expected
    assert write(tmp_path / "bom", posts, encoding="utf-8-sig") == expected
    in_order = [{about: shuffled(draw, record) for about, record in post.items()} for post in posts]
    assert write(tmp_path / "keys", in_order) == expected
    spelt = [{about: respelt(draw, record) for about, record in post.items()} for post in posts]
    assert write(tmp_path / "spelt", spelt, lambda about: about in mixed) == expected
    whole = json.dumps(posts, ensure_ascii=False).encode(errors="replace").decode()
    raw = json.loads(whole)  # without lone surrogates, which cannot be written unescaped
    unescaped = write(tmp_path / "unescaped", raw, encoding="utf-8-sig", ascii_only=False)
    assert unescaped == write(tmp_path / "escaped", raw, lambda about: True)


@pytest.mark.parametrize("seed", range(5))
def test_posts_in_another_order_are_the_same_posts(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    posts = make_records(draw, 12)
    order = draw.sample(range(12), 12)

    def by_pid(rows: list[Any]) -> dict[str, Any]:
        moved = ("source_row", "popularity")  # which `write` numbers by place
        return {row["pid"]: {n: v for n, v in row.items() if n not in moved} for row in rows if isinstance(row, dict)}

    expected = by_pid(write(tmp_path / "one", posts))
    assert by_pid(write(tmp_path / "other", [posts[n] for n in order], lambda about: draw.random() < 0.5)) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "name", ["train_text.json", "train_user_data.json", "train_label.txt", "train_img_filepath.txt"]
)
def test_another_encoding_is_refused_with_file_and_line_and_its_name(
    folder: Any, post: Any, encoding: str, name: str
) -> None:
    path = folder.write(post(1), post(2)).file(name.removeprefix("train_"))
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(SourceError, match=rf"{name}:1: .*(UTF-16|UTF-32).*UTF-8"):
        list(SmpdSource(SourceConfig(path=str(folder.path)), folder.path).rows("train"))


@pytest.mark.parametrize("columns", [(), ("category", "text", "temporalspatial_information", "user_data")])
@pytest.mark.parametrize(
    ("field", "stated", "kept"),
    [
        ("Pid", "10\udc00", "10\ufffd"),
        ("Pid", "1\0", "1\ufffd"),
        ("Pid", "1001.0", "1001"),
        ("Pid", 1001.0, "1001"),
        ("Uid", "x\ud83d@N01", "x\ufffd@N01"),
        ("Uid", "x\0@N01", "x\ufffd@N01"),
        ("Title", "a\ud83d", "a\ufffd"),
        ("Title", "a\0b", "a\0b"),
        ("Title", float("nan"), ""),
        ("Title", "None", ""),
        ("Title", "Nan and I", "Nan and I"),
        ("Alltags", ["dog", "c\ud83dt"], "dog c\ufffdt"),
        ("Alltags", float("-inf"), ""),
        ("Pathalias", "x\ud83d", "x\ufffd"),
    ],
)
def test_what_no_table_holds_is_repaired_alike_in_both_containers(
    folder: Any, post: Any, columns: tuple[str, ...], field: str, stated: object, kept: str
) -> None:
    column = {"Alltags": "tags", "Pathalias": "path_alias"}.get(field, field.lower())
    folder.write(post(1, **{field: stated}), post(2), columns=columns)
    first, _ = SmpdSource(SourceConfig(path=str(folder.path)), folder.path).rows("train")
    assert isinstance(first, dict) and first[column] == kept


@pytest.mark.parametrize("columns", [(), ("category", "text", "temporalspatial_information", "user_data")])
@pytest.mark.parametrize("pid", [12345678901234567890.0, "1.2E+10", float("nan"), True, ["1"], {"id": 1}])
def test_ids_that_stand_for_several_or_none_are_refused(
    folder: Any, post: Any, columns: tuple[str, ...], pid: object
) -> None:
    folder.write(post(1), post(2, Pid=pid), post(3, Pid=pid), columns=columns)
    rows = list(SmpdSource(SourceConfig(path=str(folder.path)), folder.path).rows("train"))
    assert [row.reason if isinstance(row, Refusal) else row["pid"] for row in rows] == ["1", "no_pid", "no_pid"]
