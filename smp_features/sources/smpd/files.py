"""Finds the files of an SMPD folder, under the names and in the places that are in use."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from smp_features.errors import SourceError, nearest
from smp_features.sources.base import SPLITS, ImageRoot, Split
from smp_features.sources.smpd.text_lines import clean_path, read_lines

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
        return any((root.folder / spelt).is_file() for spelt in root.spellings(image_path))
    except (OSError, ValueError):
        return False
