"""Digests of a saved model's files: written beside them, and compared before any library is given a byte of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import ModelError

MANIFEST = "manifest.json"
"""Names the files of a saved model and the SHA-256 of each."""

TRAIN_AGAIN = "Run `smp train` again, or restore the files as they were registered."


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes, 64 hex digits.

    Example:
        >>> digest_of(b"")[:12]
        'e3b0c44298fc'
    """
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file as it is now, 64 hex digits; the file may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder's files, all of which are there already."""
    found = {path.name: digest_of_file(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"files": found}, indent=1) + "\n", encoding="utf-8")


def read_saved(folder: Path, manifest: str | None = None) -> dict[str, bytes]:
    """Return the files of a saved model, all of them compared with their manifest: name to content.

    Each is read once, so that what is returned is what was compared.

    Args:
        folder: Where `write_manifest` wrote the manifest.
        manifest: The SHA-256 that the manifest itself must have; None where nothing recorded it.

    Raises:
        ModelError: There is no manifest, it is not the one that was recorded, or a file is not the one it names.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model of smp_features, or one of a version that recorded no digests: it has no "
            f"{MANIFEST}.",
            "Run `smp train` again.",
        ) from None
    if manifest is not None and digest_of(content) != manifest:
        raise ModelError(f"{MANIFEST} of the model in {folder} was changed after it was registered.", TRAIN_AGAIN)
    try:
        listed = dict(json.loads(content)["files"])
        found = {str(name): (folder / name).read_bytes() for name in listed}
    except OSError as error:
        lost = Path(str(error.filename)).name
        raise ModelError(f"{lost} of the model in {folder} cannot be read: {error.strerror}.", TRAIN_AGAIN) from None
    except (ValueError, TypeError, KeyError):
        raise ModelError(f"{MANIFEST} of the model in {folder} cannot be read.", TRAIN_AGAIN) from None
    for name, file in found.items():
        if digest_of(file) != listed[name]:
            raise ModelError(f"{name} of the model in {folder} was changed after it was saved.", TRAIN_AGAIN)
    return found
