"""Tells by their names whether image paths belong to the rows they stand in: `train/UID/PID.jpg` is of post PID."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from smp_features.errors import SourceError
from smp_features.sources.smpd import fields
from smp_features.sources.smpd.text_lines import clean_path, read_lines

_HEADING_LINES = 20
"""Lines that are looked at to tell whether the first is a heading."""
_NAMED_BY_PID = 0.5
"""From this share of paths on that are named after a post's Pid, that is how they are named."""
_NAMED_BY_UID = 0.9
"""The same for folders named after a Uid; more, since folders of other names may be numbers too."""


@dataclass(frozen=True)
class Misplaced:
    """A path that belongs to another row.

    Attributes:
        row: The row it stands in, from 1.
        owner: The first row whose id its name is.
        id: `Pid` or `Uid`.
    """

    row: int
    owner: int
    id: str


class PathNames:
    """What the paths of a half are named after, and the ids of its rows, as hashes: 32 bytes a row."""

    def __init__(self) -> None:
        self._pids, self._stems, self._uids, self._folders = (array("q") for _ in range(4))

    def note(self, pid: str, uid: str, path: str) -> None:
        """Note a row; its id or its path may be ''."""
        folder, _, name = path.replace("\\", "/").rpartition("/")
        stem = name.rpartition(".")[0] or name
        folder = folder.rpartition("/")[2]
        self._pids.append(hash(pid) if pid else 0)
        self._stems.append(hash(stem) if stem else 0)
        self._uids.append(hash(uid) if uid else 0)
        self._folders.append(hash(folder) if folder else 0)

    def misplaced(self) -> Misplaced | None:
        """Return the first path that is named after another row's post, or lies in another user's folder."""
        pids, stems, uids, folders = (
            np.frombuffer(hashes, np.int64) for hashes in (self._pids, self._stems, self._uids, self._folders)
        )
        own, foreign = _owned(stems, pids)
        named = np.count_nonzero(own | foreign)
        if named and named >= _NAMED_BY_PID * np.count_nonzero(stems):
            # A picture that many posts share is that of one of them; a moved line leaves its own row to another.
            moved = foreign & ~np.isin(stems, stems[own])
            if moved.any() or (foreign.any() and np.count_nonzero(own) > np.count_nonzero(foreign)):
                return _first(foreign, stems, pids, "Pid")
        same_folder, other_folder = _owned(folders, uids)
        named = np.count_nonzero(same_folder | other_folder)
        other_folder &= ~own
        if other_folder.any() and named >= _NAMED_BY_UID * np.count_nonzero(folders):
            return _first(other_folder, folders, uids, "Uid")
        return None


def _owned(names: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which names are the id of their own row, and which that of another row; 0 is none."""
    own = (names == ids) & (names != 0)
    return own, np.isin(names, ids) & ~own & (names != 0) & (ids != 0)


def _first(rows: np.ndarray, names: np.ndarray, ids: np.ndarray, id_name: str) -> Misplaced:
    row = int(rows.argmax())
    return Misplaced(row + 1, int((ids == names[row]).argmax()) + 1, id_name)


def refuse_misplaced(names: PathNames, paths: Path) -> None:
    """Refuse a file of paths whose lines are not those of their rows.

    Raises:
        SourceError: A path is named after another row's Pid, or lies in another row's user's folder; with its line.
    """
    found = names.misplaced()
    if found is not None:
        raise SourceError(
            f"{paths}:{found.row}: the image path is named after the {found.id} of record {found.owner}, not of record "
            f"{found.row}.",
            "Line i must be the same post in every file: a line was added, lost or moved at or above this one.",
        )


def refuse_heading(path: Path, label: bool) -> None:
    """Refuse a text file whose first line is a heading, since it shifts every line below it by one.

    Args:
        path: The file.
        label: Whether lines are labels; else they are paths.

    Raises:
        SourceError: The first line is no number and lines below it are, or no path and they are; with file and line.
    """
    first, *rest = [clean_path(line) for line in islice(read_lines(path), _HEADING_LINES)] or [""]
    if first.lower() in fields.MISSING_TEXT:
        return
    looks_right = _is_number if label else _is_path
    if not looks_right(first) and any(map(looks_right, rest)):
        what = "label" if label else "path"
        raise SourceError(
            f"{path}:1: the first line is no {what}, and lines below it are: a heading moves every {what} to the next "
            "post.",
            "Remove it; line i must be the same post in every file.",
        )


def _is_number(line: str) -> bool:
    return fields.number(fields.clean_number(line)) is not None


def _is_path(line: str) -> bool:
    return any(sign in line for sign in "./\\")
