"""Which files of a folder are a model, and the digest that pins them wherever the folder lies."""

from __future__ import annotations

import functools
import hashlib
import os

from smp_features.errors import ModelError

DIGESTED = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""File types that decide what a model computes: weights, configuration, tokenizer. Only these are ever read."""

QFORMER_TOKENIZER = "qformer_tokenizer"
"""Where InstructBLIP keeps its Q-Former's tokenizer: the one folder inside a model's that is ever read."""

_CHUNK = 1 << 22

Sizes = tuple[tuple[str, int], ...]
"""Names and sizes of a model's files: what tells most other folders apart without reading them."""


def model_files(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the files of a folder that decide what its model computes, by name: paths, sorted.

    Raises:
        ModelError: The folder cannot be read.
    """
    try:
        files = _digested(folder)
        if os.path.isdir(second := os.path.join(folder, QFORMER_TOKENIZER)):
            files += [(f"{QFORMER_TOKENIZER}/{name}", path) for name, path in _digested(second)]
    except OSError as failure:
        raise _unreadable(folder, failure) from failure
    return dict(sorted(files))


def sizes_of(folder: str | os.PathLike[str]) -> Sizes:
    """Return the names and sizes of the files of a folder that `digest_folder` reads.

    Raises:
        ModelError: The folder cannot be read.
    """
    try:
        return tuple((name, os.stat(path).st_size) for name, path in model_files(folder).items())
    except OSError as failure:
        raise _unreadable(folder, failure) from failure


def digest_folder(folder: str | os.PathLike[str]) -> str:
    """Return the SHA-256 over the names and bytes of a folder's model and tokenizer files; its place does not enter.

    Raises:
        ModelError: The folder cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for name, path in model_files(folder).items():
            digest.update(f"{name}\0{digest_file(path)}\n".encode())
    except OSError as failure:
        raise _unreadable(folder, failure) from failure
    return digest.hexdigest()


def _unreadable(folder: str | os.PathLike[str], failure: OSError) -> ModelError:
    return ModelError(f"The model folder '{os.fspath(folder)}' cannot be read ({failure.strerror}).")


def _digested(folder: str | os.PathLike[str]) -> list[tuple[str, str]]:
    with os.scandir(os.fspath(folder)) as entries:
        return [(entry.name, entry.path) for entry in entries if entry.is_file() and entry.name.endswith(DIGESTED)]


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, read once per process as long as its size and time stay the same."""
    status = os.stat(path)
    return _digest_unchanged(os.fspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_unchanged(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
