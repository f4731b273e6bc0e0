"""Looks up image files that data names, without ever leaving the folder they must lie in."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from smp_features.sources.base import ImageRoot

MAX_FILE_BYTES = 128 << 20
"""Larger files are not read: no photograph is that large, and a batch of bytes has to fit in memory."""

LOOKUP_THREADS = 16
"""Network file systems answer many look-ups at once; a local one does not mind."""

_INNOCENT = re.compile(r"[\w@-][\w@-]*(/[\w@-]+)*(\.\w+)?", re.ASCII)
"""A path of which it can be told without a look that it leads nowhere else."""
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class ImageFile:
    """What a look at the file system, not at the content, says about an image.

    Attributes:
        status: `present`, `missing`, `empty`, `too_many_bytes`, or `path_refused`: the path leads out of its folder,
            or to something that is not a file.
        path: The file, resolved; null unless present.
        size: Bytes; null unless there is a file.
        modified_at: Unix microseconds (UTC); null unless there is a file.
    """

    status: str
    path: str | None = None
    size: int | None = None
    modified_at: int | None = None


def look_up(root: ImageRoot | None, image_path: str | None) -> ImageFile:
    """Look up one image, by its path as it is stated or else as another system would write it (`ImageRoot.spellings`).

    Args:
        root: Where paths start; the file must lie in its folder once every symbolic link is followed.
            None: there are no pictures.
        image_path: The path as the source states it; null if it states none.
    """
    if root is None or not image_path:
        return ImageFile("missing")
    folder = _resolved(str(root.folder))
    for relative in root.spellings(image_path):
        looked = _look_at(folder, relative)
        if looked.status != "missing":
            return looked
    return ImageFile("missing")


def _look_at(folder: str, relative: str) -> ImageFile:
    """Look up a file by its path relative to a resolved folder."""
    if _URL.match(relative) or relative.startswith(("/", "\\")) or "\0" in relative:
        return ImageFile("path_refused")
    joined = os.path.join(folder, relative)
    # Only the file itself is resolved every time: many share a folder, and resolving asks for each component.
    path = os.path.join(_resolved(os.path.dirname(joined)), os.path.basename(joined))
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            path = os.path.realpath(path)
            found = os.lstat(path)
    except OSError:
        return ImageFile("missing" if is_within(folder, path) else "path_refused")
    if not is_within(folder, path) or not stat.S_ISREG(found.st_mode):
        return ImageFile("path_refused")
    size, modified_at = found.st_size, found.st_mtime_ns // 1000
    if size == 0:
        return ImageFile("empty", None, 0, modified_at)
    if size > MAX_FILE_BYTES:
        return ImageFile("too_many_bytes", None, size, modified_at)
    return ImageFile("present", path, size, modified_at)


def look_up_all(
    root: ImageRoot | None, image_paths: Sequence[str | None], threads: ThreadPoolExecutor
) -> list[ImageFile]:
    """Look up images in parallel; results in the order of the paths."""
    _resolved.cache_clear()  # links may have moved since the last call
    if root is not None and not root.folder.exists():
        return [_without_folder(root, path) for path in image_paths]
    share = -(-len(image_paths) // LOOKUP_THREADS) or 1
    shares = [image_paths[start : start + share] for start in range(0, len(image_paths), share)]
    looked = threads.map(lambda paths: [look_up(root, path) for path in paths], shares)
    return [file for part in looked for file in part]


def _without_folder(root: ImageRoot, image_path: str | None) -> ImageFile:
    """Return what a look-up would say where the folder itself is missing."""
    return look_up(root, image_path) if image_path and not _INNOCENT.fullmatch(image_path) else ImageFile("missing")


def is_within(folder: str, path: str) -> bool:
    """Whether a resolved path lies in a resolved folder."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)


@lru_cache(maxsize=65_536)
def _resolved(folder: str) -> str:
    return str(Path(os.path.realpath(folder)))
