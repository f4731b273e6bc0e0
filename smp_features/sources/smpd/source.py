"""Reads posts from the SMP Challenge's folder layout, as a stream of checked rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path

from smp_features.errors import ConfigError
from smp_features.sources.base import ImageRoot, Outline, Refusal, Row, RowSource, Split
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.aligned_rows import AlignedFiles, AlignedRow
from smp_features.sources.smpd.drift import Fields
from smp_features.sources.smpd.files import EXTERNAL_FILE, SplitFiles, find_external, find_image_root, find_splits
from smp_features.sources.smpd.json_rows import JsonRows, Record
from smp_features.sources.smpd.text_lines import clean_path
from smp_features.sources.smpd.user_additional import read_external
from smp_features.sources.smpd.user_data import Vectors, is_code, profile
from smp_features.sources.smpd.vectors import read_vectors

_CHUNK_ROWS = 500
"""Rows whose profile vectors are read at once."""
_OR_ELSE = "or not in every file, or one that was rounded"
_FORMS = {"records": "list of records", "columns": "object of columns"}


class SmpdSource(RowSource):
    """An SMPD folder: the files of the SMP Challenge, in every form that is in use."""

    external_name = EXTERNAL_FILE

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.settings.path)

    @property
    def generated(self) -> bool:
        """Whether the folder says that its posts were made up."""
        return self.settings.path is not None and (self._folder / "generated.json").is_file()

    def check(self) -> None:
        """Refuse a folder that is missing, or lacks a file.

        Raises:
            SourceError: There is no such folder, or no posts in it, or a file is missing.
            ConfigError: No `source.path` is configured.
        """
        find_splits(self._folder)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The halves that are there."""
        return tuple(self._files)

    def details(self, split: Split) -> str:
        """Return the form of a half's user_data file."""
        return f"user_data is a {_FORMS[self._aligned[split].containers['user_data']]}"

    def image_root(self, split: Split) -> ImageRoot:
        """Return where the image paths of a half start from."""
        return find_image_root(self._folder, self._files[split])

    def rows(self, split: Split) -> Iterator[Row | Refusal]:
        """Yield one post or refusal per line of a half, in order.

        A post is a dictionary of the source's columns of `posts` (without those of the image file), of
        `PROFILE_FIELDS`, and `popularity` (null for test). Times are Unix microseconds (UTC).

        Raises:
            SourceError: Misaligned, truncated or malformed files; with file and line. Or a field that no record has.
        """
        stated = Fields()
        for chunk, vectors in _chunks(self._aligned[split]):
            for aligned, of_user in zip(chunk, vectors, strict=True):
                stated.note(aligned.records)
                yield self._row(split, aligned, stated, of_user)
        self.quirks += stated.quirks()
        if not self.settings.allow_removal:
            stated.refuse(self._files[split].json, self.settings.without)

    def external_profiles(self) -> Iterator[Row | Refusal]:
        """Yield the external profiles, if there are any: `alias`, `line`, and the eight counts; or refused lines."""
        path = find_external(self._folder)
        return iter(()) if path is None else read_external(path)

    def outlines(self, split: Split) -> Iterator[Outline]:
        """Yield pid, user and category of the posts of a half, from the one file that states them.

        Raises:
            SourceError: The file is truncated or malformed; with file and line.
        """
        spill = self.scratch / f"{split}_outlines.sqlite"
        for record in JsonRows(self._files[split].json["category"], spill):
            pid, uid = fields.id_of(record.get("pid")), fields.id_of(record.get("uid"))
            if uid:
                yield Outline(pid, uid, fields.optional_text(record.get("category")))

    @property
    def _folder(self) -> Path:
        if self.settings.path is None:
            raise ConfigError("No source folder is configured.", "Set source.path, for example --set source.path=DIR.")
        return Path(self.settings.path)

    @cached_property
    def _files(self) -> dict[Split, SplitFiles]:
        return {files.split: files for files in find_splits(self._folder)}

    @cached_property
    def _aligned(self) -> dict[Split, AlignedFiles]:
        limit = self.settings.limit
        return {split: AlignedFiles(files, self.scratch, limit) for split, files in self._files.items()}

    def _row(self, split: Split, aligned: AlignedRow, stated: Fields, vectors: Vectors) -> Row | Refusal:
        source_row = f"{split}:{aligned.number}"
        if not aligned.pid:
            return Refusal(source_row, None, "no_pid", f"The row states no Pid, {_OR_ELSE}.")
        if not aligned.uid:
            return Refusal(source_row, aligned.pid, "no_uid", f"The row states no Uid, {_OR_ELSE}.")
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
            **self._topic(aligned.records["category"], aligned.records["text"], stated),
            **self._place(where, stated),
            **self._additional(aligned.records["additional"], stated),
            "image_path": path or None,
            "source_row": source_row,
            "popularity": popularity,
            **self._profile(aligned.records["user_data"], stated, vectors),
        }

    def _topic(self, category: Record, text: Record, stated: Fields) -> Row:
        said = text.get("title")
        if said is None and text.get("tile") is not None:
            self.quirks["titles under the key Tile"] += 1
            said = text["tile"]
        stated.text("text", "Title", said)
        for field in ("Alltags", "Mediatype"):
            stated.text("text", field, text.get(field.lower()))
        for field in ("Category", "Subcategory", "Concept"):
            stated.text("category", field, category.get(field.lower()))
        title = fields.title_of(said)
        self.quirks["empty titles"] += not title.strip()
        media_type = fields.optional_text(text.get("mediatype"))
        self.quirks["videos"] += media_type is not None and media_type.lower() == "video"
        return {
            "title": title,
            "tags": fields.optional_text(text.get("alltags"), zero_is_missing=False) or "",
            "category": fields.optional_text(category.get("category")),
            "subcategory": fields.optional_text(category.get("subcategory")),
            "concept": fields.optional_text(category.get("concept")),
            "media_type": None if media_type is None else media_type.lower(),
        }

    def _place(self, where: Record, stated: Fields) -> Row:
        for field in ("Latitude", "Longitude", "Geoaccuracy"):
            value = where.get(field.lower())
            stated.parsed("temporalspatial", field, value, fields.number(value) is not None)
        north, east, accuracy = fields.place(where.get("latitude"), where.get("longitude"), where.get("geoaccuracy"))
        self.quirks["posts without a place"] += north is None
        return {"latitude": north, "longitude": east, "geo_accuracy": accuracy}

    def _additional(self, record: Record, stated: Fields) -> Row:
        alias = fields.optional_text(record.get("pathalias"))
        public = fields.flag(record.get("ispublic"))
        self.quirks["posts without an alias"] += alias is None
        stated.text("additional", "Pathalias", record.get("pathalias"))
        stated.text("additional", "Mediastatus", record.get("mediastatus"))
        stated.parsed("additional", "Ispublic", record.get("ispublic"), public is not None)
        return {
            "path_alias": alias,
            "is_public": public,
            "media_status": fields.optional_text(record.get("mediastatus"), zero_is_missing=False),
        }

    def _profile(self, record: Record, stated: Fields, vectors: Vectors) -> Row:
        found = profile(record, self.quirks, vectors)
        for field, column in (("photo_count", "photo_count"), ("ispro", "is_pro"), ("canbuypro", "can_buy_pro")):
            stated.parsed("user_data", field, record.get(field), found[column] is not None)
        first, offset = record.get("photo_firstdate"), record.get("timezone_offset")
        stated.parsed("user_data", "photo_firstdate", first, fields.number(first) is not None)
        in_time = found["timezone_offset_minutes"] is not None or is_code(offset)
        stated.parsed("user_data", "timezone_offset", offset, in_time)
        for field in ("photo_firstdatetaken", "user_description", "location_description"):
            stated.text("user_data", field, record.get(field))
        return found

    def _notice(self, aligned: AlignedRow) -> None:
        if any(isinstance(record.get("pid"), int) for record in aligned.records.values()):
            self.quirks["rows with a Pid that is a number"] += 1
        self.quirks["image paths in quotes"] += '"' in aligned.image_path or "'" in aligned.image_path
        self.quirks["image paths with a carriage return"] += "\r" in aligned.image_path


def _chunks(aligned: AlignedFiles) -> Iterator[tuple[list[AlignedRow], list[Vectors]]]:
    """Yield rows by the hundred with their vectors; the next are read in a thread while these are worked on."""
    rows = iter(aligned)

    def take() -> tuple[list[AlignedRow], list[Vectors]]:
        chunk = list(islice(rows, _CHUNK_ROWS))
        users = [row.records["user_data"] for row in chunk]
        texts = ([user.get(name) for user in users] for name in ("user_description", "location_description"))
        return chunk, list(zip(*map(read_vectors, texts), strict=True))

    with ThreadPoolExecutor(1, "read") as thread:
        ahead = thread.submit(take)
        while (taken := ahead.result())[0]:
            ahead = thread.submit(take)
            yield taken
