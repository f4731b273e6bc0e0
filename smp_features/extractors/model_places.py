"""Where a worker finds a model's files: by their digest, in whichever place it can read."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smp_features.errors import ModelError
from smp_features.extractors.model_digests import Sizes, digest_folder, model_files, sizes_of


class ModelStore(Protocol):
    """The part of the root's store that models travel through; can be pickled."""

    def has_folder(self, prefix: str) -> bool:
        """Whether a folder was put under a prefix, complete."""
        ...

    def put_folder(self, prefix: str, folder: Path) -> None:
        """Put all files of a folder under a prefix."""
        ...

    def fetch_folder(self, prefix: str, folder: Path) -> None:
        """Copy what was put under a prefix into a folder."""
        ...


@dataclass(frozen=True)
class ModelPlaces:
    """Places beside the driver's own path in which a model may lie; pickled to workers with the extractor.

    Attributes:
        folders: Folders of models, or of folders of models, on every machine that has them.
        store: The root's, where the driver may have put the model; null where it is not to be asked.
    """

    folders: tuple[str, ...] = ()
    store: ModelStore | None = None

    def find(self, first: Path, digest: str, sizes: Sizes) -> Path | None:
        """Return a folder that holds exactly these files, or None.

        Looked at in turn: the path at which the driver found it, the models that the installed package bundles, the
        configured folders and theirs, the root's store, from which it is copied to this machine once.

        Args:
            first: The driver's path.
            digest: As `digest_folder` of the driver's gave it.
            sizes: As `sizes_of` of the driver's gave them.
        """
        for folder in self._candidates(first):
            if _holds(folder, digest, sizes):
                return folder
        return None if self.store is None else _fetched(self.store, digest, sizes)

    def _candidates(self, first: Path) -> Iterator[Path]:
        yield first
        yield from _bundled()
        for name in self.folders:
            folder = Path(name).expanduser()
            yield folder
            if folder.is_dir():
                yield from sorted(folder.iterdir())


NOWHERE = ModelPlaces()
"""No place but the driver's path and the installed package."""


def put_model(store: ModelStore, folder: str, digest: str) -> None:
    """Put a model into the root for workers to fetch, unless it is there, or is one that the package bundles.

    Args:
        store: The root's.
        folder: Where it lies on the driver.
        digest: Of its files.

    Raises:
        FilesError: The root cannot be written.
    """
    prefix = _prefix(digest)
    if any(_holds(each, digest, sizes_of(folder)) for each in _bundled()) or store.has_folder(prefix):
        return
    with tempfile.TemporaryDirectory(prefix="smp-model-") as chosen:  # a folder may hold much that is never read
        for name, path in model_files(folder).items():
            link = Path(chosen, name)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(Path(path).resolve())
        store.put_folder(prefix, Path(chosen))


def _holds(folder: Path, digest: str, sizes: Sizes) -> bool:
    try:
        return folder.is_dir() and sizes_of(folder) == sizes and digest_folder(folder) == digest
    except (ModelError, OSError):
        return False  # this process may not read it


def _bundled() -> list[Path]:
    from smp_features.extractors.zoo import ZOO

    return list(ZOO.values())


def _fetched(store: ModelStore, digest: str, sizes: Sizes) -> Path | None:
    cache = Path(tempfile.gettempdir(), f"smp-models-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    folder, unfinished = cache / digest, cache / f"{digest}.part"
    with open(cache / f"{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of one machine fetch it once
        if _holds(folder, digest, sizes):
            return folder
        if not store.has_folder(_prefix(digest)):
            return None
        for left in (folder, unfinished):  # of a process that was killed, or damaged since
            shutil.rmtree(left, ignore_errors=True)
        store.fetch_folder(_prefix(digest), unfinished)
        unfinished.rename(folder)
    return folder if _holds(folder, digest, sizes) else None


def _prefix(digest: str) -> str:
    return f"models/{digest}"
