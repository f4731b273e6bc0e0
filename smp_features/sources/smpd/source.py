"""Reads posts from the SMP Challenge's folder layout, as a stream of checked rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smp_features.sources.smpd import fields
from smp_features.sources.smpd.aligned_rows import AlignedFiles, AlignedRow
from smp_features.sources.smpd.files import ImageRoot, Split, SplitFiles, find_external, find_image_root, find_splits
from smp_features.sources.smpd.json_rows import Record
from smp_features.sources.smpd.text_lines import clean_path
from smp_features.sources.smpd.user_additional import read_external
from smp_features.sources.smpd.user_data import profile

Row = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A source row that cannot become a post.

    Attributes:
        source_row: Split and line number, such as `train:17`.
        pid: As stated; null if that is the reason.
        reason: `no_pid`, `no_uid`, `bad_time`, `bad_label`, `duplicate_pid` or `conflicting_pid`.
        detail: Why, without any content.
    """

    source_row: str
    pid: str | None
    reason: str
    detail: str


class SmpdSource:
    """An SMPD folder.

    Args:
        folder: The folder.
        spill: A folder for temporary files.
        limit: Read only this many rows of each split; None reads all.

    Attributes:
        splits: The halves that are there.
        quirks: Counts what was met, by name; complete when the rows have been read.

    Raises:
        SourceError: The folder, or a file in it, is missing.
    """

    def __init__(self, folder: Path, spill: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.quirks: Counter[str] = Counter()
        self._files: dict[Split, SplitFiles] = {files.split: files for files in find_splits(folder)}
        self._aligned = {split: AlignedFiles(files, spill, limit) for split, files in self._files.items()}
        self.splits: tuple[Split, ...] = tuple(self._files)

    def user_data_form(self, split: Split) -> str:
        """Return the container of a half's user_data file: `records` or `columns`."""
        return self._aligned[split].containers["user_data"]

    def image_root(self, split: Split) -> ImageRoot:
        """Return where the image paths of a half start from."""
        return find_image_root(self.folder, self._files[split])

    def rows(self, split: Split) -> Iterator[Row | Refusal]:
        """Yield one post or refusal per line of a half, in order.

        A post is a dictionary of the source's columns of `posts` (without those of the image file), of
        `PROFILE_FIELDS`, and `popularity` (null for test). Times are Unix microseconds (UTC).

        Raises:
            SourceError: Misaligned, truncated or malformed files; with file and line.
        """
        for aligned in self._aligned[split]:
            yield self._row(split, aligned)

    def external_profiles(self) -> Iterator[Row]:
        """Yield the external profiles, if there are any: `alias`, `line`, and the eight counts.

        Raises:
            SourceError: A line is malformed; with file and line.
        """
        path = find_external(self.folder)
        return iter(()) if path is None else read_external(path)

    def _row(self, split: Split, aligned: AlignedRow) -> Row | Refusal:
        source_row = f"{split}:{aligned.number}"
        if not aligned.pid:
            return Refusal(source_row, None, "no_pid", "The row states no Pid, or not in every file.")
        if not aligned.uid:
            return Refusal(source_row, aligned.pid, "no_uid", "The row states no Uid, or not in every file.")
        where = aligned.records["temporalspatial"]
        posted = fields.seconds(where.get("postdate"))
        if posted is None:
            detail = "Postdate is no time in Unix seconds between 1970-01-02 and 2100."
            return Refusal(source_row, aligned.pid, "bad_time", detail)
        popularity = fields.popularity(aligned.label) if split == "train" else None
        if split == "train" and popularity is None:
            return Refusal(source_row, aligned.pid, "bad_label", "The label is not a number from 0 to 64.")
        path = clean_path(aligned.image_path)
        self._notice(aligned)
        event = posted * 1_000_000
        return {
            "pid": aligned.pid,
            "split": split,
            "uid": aligned.uid,
            "event_ts": event,
            **self._topic(aligned.records["category"], aligned.records["text"]),
            **self._place(where),
            **self._additional(aligned.records["additional"]),
            "image_path": path or None,
            "source_row": source_row,
            "popularity": popularity,
            **profile(aligned.records["user_data"], self.quirks),
        }

    def _topic(self, category: Record, text: Record) -> Row:
        if "title" not in text and "tile" in text:
            self.quirks["titles under the key Tile"] += 1
        title = fields.text_of(text.get("title", text.get("tile")))
        self.quirks["empty titles"] += not title.strip()
        tags = text.get("alltags")
        media_type = fields.optional_text(text.get("mediatype"))
        self.quirks["videos"] += media_type is not None and media_type.lower() == "video"
        return {
            "title": title,
            "title_key": fields.text_key(title),
            "tags": fields.optional_text(tags, zero_is_missing=False) or "",
            "category": fields.optional_text(category.get("category")),
            "subcategory": fields.optional_text(category.get("subcategory")),
            "concept": fields.optional_text(category.get("concept")),
            "media_type": None if media_type is None else media_type.lower(),
        }

    def _place(self, where: Record) -> Row:
        north, east, accuracy = fields.place(where.get("latitude"), where.get("longitude"), where.get("geoaccuracy"))
        self.quirks["posts without a place"] += north is None
        return {"latitude": north, "longitude": east, "geo_accuracy": accuracy}

    def _additional(self, record: Record) -> Row:
        alias = fields.optional_text(record.get("pathalias"))
        self.quirks["posts without an alias"] += alias is None
        return {
            "path_alias": alias,
            "is_public": fields.flag(record.get("ispublic")),
            "media_status": fields.optional_text(record.get("mediastatus"), zero_is_missing=False),
        }

    def _notice(self, aligned: AlignedRow) -> None:
        if any(isinstance(record.get("pid"), int) for record in aligned.records.values()):
            self.quirks["rows with a Pid that is a number"] += 1
        self.quirks["image paths in quotes"] += '"' in aligned.image_path or "'" in aligned.image_path
        self.quirks["image paths with a carriage return"] += "\r" in aligned.image_path
