"""What is checked before a command writes anything: the source, the models, the root."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from smp_features.config import Config
from smp_features.errors import RootError
from smp_features.extractors.registry import build_extractors, chosen
from smp_features.lake.files import open_store
from smp_features.lake.schema import Schema
from smp_features.sources.base import open_source


def check_before_writing(
    config: Config, stages: Sequence[str] | None = None, extractors: Sequence[str] | None = None
) -> None:
    """Refuse what would fail later: a missing source, a model that cannot be loaded, an unwritable root.

    Args:
        config: The configuration.
        stages: The stages about to run; None means all.
        extractors: The extractors about to run; None means all.

    Raises:
        ConfigError: A feature group is unknown, or two things of the configuration have one name.
        SourceError: The source is not there, or is not what its kind reads.
        ModelError: A model folder is not a model of the right kind.
        RootError: The root cannot be created or written.
    """
    if stages is None or "ingest" in stages:
        with tempfile.TemporaryDirectory() as scratch:
            open_source(config, Path(scratch)).check()
    check_root(config.root)
    Schema.of(config)
    if stages is None or "extract" in stages:
        for extractor in chosen(build_extractors(config.models), extractors):
            extractor.check()


def check_root(root: str) -> None:
    """Refuse a local root that is not, or could not become, a writable folder.

    Raises:
        RootError: It is no known address; or a file; or its nearest existing parent cannot be written.
    """
    folder = open_store(root).local_folder()
    if folder is None:
        return
    hint = "Choose another with --root, or mend its permissions."
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise RootError(f"The root {root} cannot be used: {existing.name} is a file.", hint)
    try:
        # Permission bits do not tell on every file system, so try, and leave nothing behind.
        with tempfile.TemporaryDirectory(dir=existing, prefix=".smp-"):
            pass
    except OSError as error:
        raise RootError(f"The root {root} cannot be written ({error.strerror}).", hint) from None
