"""Finds the row-aligned files of an SMPD folder and walks them side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from smp_features.errors import SourceError, nearest
from smp_features.sources.json_rows import Container, JsonRows, Record

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

JSON_FILES = {
    "category": ("category",),
    "text": ("text", "tags"),
    "temporalspatial": ("temporalspatial_information", "temporalspatial"),
    "additional": ("additional_information", "additional"),
    "user_data": ("user_data", "userdata"),
}
"""What each JSON file is about, and its names, newest first, without the split in front."""

PATH_FILES = ("img_filepath", "img_path", "img_filepaths")
LABEL_FILES = ("label", "labels")
EXTERNAL_FILE = "user_additional.txt"
MISSING_IDS = frozenset({"", "none", "null", "nan"})
PROBED_PATHS = 500
"""Lines of the path file that are looked up to tell which folder they start from."""


@dataclass(frozen=True)
class SplitFiles:
    """The files of one half of the posts.

    Attributes:
        split: Which half.
        json: File by what it is about, the keys of `JSON_FILES`.
        paths: The file of image paths.
        labels: The file of labels; null for test.
    """

    split: Split
    json: dict[str, Path]
    paths: Path
    labels: Path | None


@dataclass(frozen=True)
class AlignedRow:
    """What all files say about one post.

    Attributes:
        number: Line number, from 1.
        records: Record by what its file is about.
        pid: As stated, '' if no file states it, or one of them leaves it empty.
        uid: Likewise.
        image_path: The line as it is, without its line end.
        label: Likewise; null for test.
    """

    number: int
    records: dict[str, Record]
    pid: str
    uid: str
    image_path: str
    label: str | None


def find_splits(folder: Path) -> list[SplitFiles]:
    """Find the files of the halves that are there.

    Args:
        folder: Holds `train_allmetadata_json/` or `test_allmetadata_json/` or both, or their files themselves.

    Raises:
        SourceError: The folder is missing, holds neither half, or a half lacks a file.
    """
    if not folder.is_dir():
        siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        hint = nearest(folder.name, siblings) if 0 < len(siblings) <= 50 else None
        raise SourceError(f"The source folder {folder} does not exist.", hint or "Set source.path.")
    found = [_split_files(folder, split) for split in SPLITS]
    splits = [files for files in found if files is not None]
    if not splits:
        raise SourceError(
            f"{folder} holds no posts in the SMPD layout.",
            "Expected train_allmetadata_json/ with train_text.json and its companions, or test_allmetadata_json/.",
        )
    return splits


def find_external(folder: Path) -> Path | None:
    """Find the external profile file, if there is one."""
    places = (folder, *(folder / f"{split}_allmetadata_json" for split in SPLITS))
    return next((place / EXTERNAL_FILE for place in places if (place / EXTERNAL_FILE).is_file()), None)


def _split_files(folder: Path, split: Split) -> SplitFiles | None:
    inner = folder / f"{split}_allmetadata_json"
    place = inner if inner.is_dir() else folder
    texts = _existing(place, split, JSON_FILES["text"], ".json")
    if place is folder and texts is None:
        return None
    json = {about: _required(place, split, names, ".json") for about, names in JSON_FILES.items()}
    labels = _required(place, split, LABEL_FILES, ".txt") if split == "train" else None
    return SplitFiles(split, json, _required(place, split, PATH_FILES, ".txt"), labels)


def _existing(place: Path, split: Split, names: tuple[str, ...], ending: str) -> Path | None:
    candidates = (place / f"{split}_{name}{ending}" for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _required(place: Path, split: Split, names: tuple[str, ...], ending: str) -> Path:
    path = _existing(place, split, names, ending)
    if path is None:
        wanted = " or ".join(f"{split}_{name}{ending}" for name in names)
        raise SourceError(
            f"{place} has no {wanted}.", "All files of the layout are needed; their lines belong together."
        )
    return path


class AlignedFiles:
    """The rows of one half, each put together from all its files.

    Args:
        files: The files.
        spill: A folder for temporary files.
        limit: Read only this many rows; None reads all, and then the files must be equally long.

    Attributes:
        containers: By what a file is about, whether it is a list of records or an object of columns.

    Raises:
        SourceError: A file is neither container.
    """

    def __init__(self, files: SplitFiles, spill: Path, limit: int | None = None) -> None:
        self.files = files
        self._limit = limit
        self._json = {
            about: JsonRows(path, spill / f"{files.split}_{about}.sqlite", limit) for about, path in files.json.items()
        }
        self.containers: dict[str, Container] = {about: rows.container for about, rows in self._json.items()}

    def __iter__(self) -> Iterator[AlignedRow]:
        """Yield the rows in order.

        Raises:
            SourceError: A row in which the files name different posts or users, files of different lengths, malformed
                or truncated files; with file and line.
        """
        about = list(self._json)
        columns: list[Iterator[Record] | Iterator[str]] = [iter(rows) for rows in self._json.values()]
        columns.append(read_lines(self.files.paths))
        if self.files.labels is not None:
            columns.append(read_lines(self.files.labels))
        number = 0
        while self._limit is None or number < self._limit:
            cells = [next(column, None) for column in columns]
            if any(cell is None for cell in cells):
                self._check_ends(number, cells, columns)
                return
            number += 1
            records = {name: cell for name, cell in zip(about, cells, strict=False) if isinstance(cell, dict)}
            pid = self._agreed(number, records, "pid")
            uid = self._agreed(number, records, "uid")
            lines = [cell for cell in cells[len(about) :] if isinstance(cell, str)]
            yield AlignedRow(number, records, pid, uid, lines[0], lines[1] if len(lines) > 1 else None)

    def _agreed(self, number: int, records: dict[str, Record], field: str) -> str:
        stated: dict[str, str] = {}
        empty = False
        for about, record in records.items():
            if "pid" not in record and "uid" not in record:
                raise SourceError(
                    f"{self.files.json[about]}: record {number} has neither Pid nor Uid.",
                    "Without one of them nobody can tell whether its rows belong to those of the other files.",
                )
            if field in record:
                value = as_id(record[field])
                empty = empty or not value
                if value:
                    stated.setdefault(value, about)
        if len(stated) > 1:
            first, second = list(stated.items())[:2]
            raise SourceError(
                f"{self.files.json[second[1]]}: record {number} has {field.capitalize()} {second[0][:40]}, but record "
                f"{number} of {self.files.json[first[1]].name} has {first[0][:40]}.",
                "Line i must be the same post in every file.",
            )
        return "" if empty else next(iter(stated), "")

    def _check_ends(self, number: int, cells: list[Record | str | None], columns: list[Iterator]) -> None:
        """Refuse files of different lengths; blank lines at the end of a text file are not rows."""
        names = [*self.files.json.values(), self.files.paths]
        if self.files.labels is not None:
            names.append(self.files.labels)
        counts = {}
        for path, cell, column in zip(names, cells, columns, strict=True):
            rest = [] if cell is None else chain([cell], column)
            last = 0
            for offset, value in enumerate(rest, 1):
                if not (isinstance(value, str) and not value.strip()):
                    last = offset
            counts[path] = number + last
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{path.name} {rows:,}" for path, rows in counts.items())
            odd = min(counts, key=lambda path: list(counts.values()).count(counts[path]))
            raise SourceError(
                f"{odd}: the files have different numbers of rows: {listed}.", "Line i must be the same post."
            )


def as_id(value: object) -> str:
    """Return a pid or uid as text: ints and strings of the same digits are the same id; '' if it is missing."""
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if text.lower() in MISSING_IDS else text


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, without their ends; a byte-order mark is skipped.

    Raises:
        SourceError: A line is not UTF-8; with file and line.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise SourceError(f"{path}:{number}: bytes that are not UTF-8.") from None
            yield line.rstrip("\n")


@dataclass(frozen=True)
class ImageRoot:
    """Where image paths start.

    Attributes:
        folder: The folder that every image must lie in.
        prefix: Leading component that a path may have and the folder stands for, such as `train`; null if none.
    """

    folder: Path
    prefix: str | None = None

    def relative(self, image_path: str) -> str:
        """Return a path relative to the folder."""
        if self.prefix is not None and image_path.startswith(self.prefix + "/"):
            return image_path[len(self.prefix) + 1 :]
        return image_path


def find_image_root(folder: Path, files: SplitFiles) -> ImageRoot:
    """Find the folder that the image paths of one half start from, by looking up the first of them.

    Known places are `images/train/`, `train/` and `SMP_train_images/`, where the path's own leading `train/` may be
    left out or not. Where no image is found, it is the first of these that exists.
    """
    split = files.split
    bases = [folder, *([folder.parent] if files.paths.parent == folder else [])]
    candidates = []
    for base in bases:
        archive = base / f"SMP_{split}_images"
        candidates += [ImageRoot(base / "images" / split, split), ImageRoot(base / split, split)]
        candidates += [ImageRoot(archive / split, split), ImageRoot(archive, split), ImageRoot(base / "images")]
    present = [root for root in candidates if root.folder.is_dir()]
    if not present:
        return candidates[0]
    probed = [clean_path(line) for line in islice(read_lines(files.paths), PROBED_PATHS)]
    hits = [sum(_is_file(root, path) for path in probed if path) for root in present]
    return present[hits.index(max(hits))]


def _is_file(root: ImageRoot, image_path: str) -> bool:
    try:
        return (root.folder / root.relative(image_path)).is_file()
    except (OSError, ValueError):
        return False


def clean_path(line: str) -> str:
    """Return an image path without the quotes, carriage return and blanks that real files have around it."""
    return line.strip().strip("\"'").strip()
