"""Walks the row-aligned files of an SMPD folder side by side, and refuses rows that do not belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from smp_features.errors import SourceError
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.alignment import PathNames, refuse_heading, refuse_misplaced
from smp_features.sources.smpd.files import SplitFiles
from smp_features.sources.smpd.json_rows import Container, JsonRows, Record
from smp_features.sources.smpd.text_lines import clean_path, read_lines


class AlignedRow(NamedTuple):
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
        self._without_ids: Counter[str] = Counter()
        self.containers: dict[str, Container] = {about: rows.container for about, rows in self._json.items()}

    def __iter__(self) -> Iterator[AlignedRow]:
        """Yield the rows in order.

        Raises:
            SourceError: A row in which the files name different posts or users, image paths or labels that are moved
                against the rows, files of different lengths, malformed or truncated files; with file and line.
        """
        about = list(self._json)
        columns: list[Iterator[Record] | Iterator[str]] = [iter(rows) for rows in self._json.values()]
        refuse_heading(self.files.paths, label=False)
        columns.append(read_lines(self.files.paths))
        if self.files.labels is not None:
            refuse_heading(self.files.labels, label=True)
            columns.append(read_lines(self.files.labels))
        names = PathNames()
        self._without_ids.clear()
        number = 0
        while self._limit is None or number < self._limit:
            cells = [next(column, None) for column in columns]
            if None in cells:
                self._check_ends(number, cells, columns)
                break
            number += 1
            records: dict[str, Record] = dict(zip(about, cells, strict=False))  # type: ignore[arg-type]
            pid = self._agreed(number, records, "pid")
            uid = self._agreed(number, records, "uid")
            path, label = (cells[len(about)], cells[-1] if self.files.labels is not None else None)
            names.note(pid, uid, clean_path(str(path)))
            yield AlignedRow(number, records, pid, uid, str(path), None if label is None else str(label))
        self._check_ids(number)
        refuse_misplaced(names, self.files.paths)

    def _agreed(self, number: int, records: dict[str, Record], field: str) -> str:
        """Return the id that every file states; '' if one leaves it out, or is without any id in this row."""
        values = [record.get(field) for record in records.values()]
        if isinstance(values[0], str) and values.count(values[0]) == len(values):
            return fields.id_of(values[0])
        stated: dict[str, str] = {}
        empty = False
        for about, record in records.items():
            if field in record:
                value = fields.id_of(record[field])
                empty = empty or not value
                if value:
                    stated.setdefault(value, about)
            elif "pid" not in record and "uid" not in record:
                # Nobody can tell whether the rest of the record belongs to this row.
                empty = True
                self._without_ids[about] += field == "pid"
        if len(stated) > 1:
            first, second = list(stated.items())[:2]
            raise SourceError(
                f"{self.files.json[second[1]]}: record {number} has {field.capitalize()} {second[0][:40]}, but record "
                f"{number} of {self.files.json[first[1]].name} has {first[0][:40]}.",
                "Line i must be the same post in every file.",
            )
        return "" if empty else next(iter(stated), "")

    def _check_ids(self, rows: int) -> None:
        """Refuse a file that states no id at all; a record without one among others is refused as a row."""
        for about, without in self._without_ids.items():
            if without == rows:
                raise SourceError(
                    f"{self.files.json[about]}: record 1 has neither Pid nor Uid, and no other record has.",
                    "Without one of them nobody can tell whether its rows belong to those of the other files.",
                )

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
