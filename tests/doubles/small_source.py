"""A small SMPD folder with one post of every kind, which tests change and ingest again."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from smp_features.config import Config, load_config
from smp_features.ingest.stage import TABLES, ingest
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary
from smp_features.sources.smpd.drift import KNOWN

EVENT = 1_425_168_000  # 2015-03-01T00:00:00Z
VECTORS = {"user_description": ",".join(["0.5"] * 399), "location_description": ",".join(["0.25"] * 400)}


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


MISSING = {names[0]: None for known in KNOWN.values() for names in known}
"""Every field of every file, missing."""


def make_post(number: int, **changes: Any) -> dict[str, Any]:
    return (
        MISSING
        | {
            "Pid": str(number),
            "Uid": f"{number}@N01",
            "Title": f"Title {number}",
            "Postdate": str(EVENT + number),
            "Pathalias": f"alias{number}",
            "photo_count": str(number),
            "path": f"train/{number}.png",
            "label": f"{number}.5",
        }
        | changes
    )


POSTS = (
    make_post(1),
    make_post(2, Title="", Pathalias="None"),
    make_post(3, Title="Title 1", path="train/1-again.png"),
    make_post(4, path="train/empty.png", **VECTORS),
    make_post(5, path="train/cut.png", user_description="I like snow"),
    make_post(6, path="../../secret.png", Uid="1@N01", Pathalias="alias1"),
    make_post(7, path="train/missing.png", Title="lone \ud83d surrogate"),
)
EXTRA = (make_post(1), make_post(8, Postdate="0"), make_post(9, label="nan"))
TEST_POSTS = (make_post(11, path="test/11.png"), make_post(12, path="test/12.png", Uid="1@N01", Pathalias="alias1"))


def write_half(folder: Path, split: str, posts: Sequence[Mapping[str, Any]]) -> None:
    """Write the files of one half of an SMPD folder; `path` and `label` of a post go into files of their own."""
    inner = folder / f"{split}_allmetadata_json"
    inner.mkdir(parents=True, exist_ok=True)
    for name in ("category", "text", "temporalspatial_information", "additional_information", "user_data"):
        records = [{key: value for key, value in post.items() if key not in ("path", "label")} for post in posts]
        (inner / f"{split}_{name}.json").write_text(json.dumps(records))
    (inner / f"{split}_img_filepath.txt").write_text("".join(f"{post['path']}\n" for post in posts))
    if split == "train":
        (inner / "train_label.txt").write_text("".join(f"{post['label']}\n" for post in posts))


class Source:
    """A small SMPD folder that tests change and ingest again."""

    def __init__(self, folder: Path, lakehouse: Lakehouse) -> None:
        self.folder = folder
        self.lakehouse = lakehouse

    def make(self) -> Source:
        folder = self.folder
        images = folder / "images"
        (images / "train").mkdir(parents=True)
        (images / "test").mkdir()
        for name, color in (("1", "red"), ("1-again", "red"), ("2", "blue")):
            (images / "train" / f"{name}.png").write_bytes(picture(color))
        (images / "train" / "empty.png").touch()
        (images / "train" / "cut.png").write_bytes(picture("green")[:-30])
        for name in ("11", "12"):
            (images / "test" / f"{name}.png").write_bytes(picture(f"#0000{name}"))
        (folder.parent / "secret.png").write_bytes(picture("black"))
        lines = ["None 9 9 9 9 9 9 9 9", "alias1 1 2 3 4 5 6 7 8", "nobody 1 1 1 1 1 1 1 1"]
        (folder / "user_additional.txt").write_text("\n".join(lines))
        self.write("train", *POSTS, *EXTRA)
        self.write("test", *TEST_POSTS)
        return self

    def write(self, split: str, *posts: dict[str, Any]) -> None:
        write_half(self.folder, split, posts)

    def config(self, *overrides: str) -> Config:
        settings = [f"source.path={self.folder}", "source.max_refused_share=0.3", *overrides]
        return load_config(None, settings, root=self.lakehouse.config.root)

    def ingest(self, *overrides: str, dry_run: bool = False) -> Summary:
        return ingest(self.lakehouse.session, self.config(*overrides), run="run-1", dry_run=dry_run)

    def versions(self) -> dict[str, int]:
        return self.lakehouse.versions(TABLES)

    def rows(self, table: str, key: str) -> dict[Any, Any]:
        return {row[key]: row for row in self.lakehouse.read(table).collect()}


def everything_under(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}
