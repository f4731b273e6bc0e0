"""What was computed for hours and waits to be recorded: kept in staging, so that a tracking server may die meanwhile.

staging/<area>/<run>/<key>/…      its files, and beside them the marker that they are all there
"""

from __future__ import annotations

from pathlib import Path

from smp_features.lake.files import MARKER, Store
from smp_features.lake.staging import ALIVE, STAGING


def keep(files: Store, area: str, run: str, key: str, folder: Path) -> None:
    """Put a folder of this machine where any later run finds it by its key."""
    files.put_folder(f"{STAGING}/{area}/{run}/{key}", folder)


def find(files: Store, area: str, key: str) -> str | None:
    """Return where an earlier run left what a key decides; None where none did. `Store.fetch_folder` fetches it."""
    markers = [each.name for each in files.list(f"{STAGING}/{area}") if each.name.endswith(f"/{key}{MARKER}")]
    return markers[-1].removesuffix(MARKER) if markers else None


def forget(files: Store, area: str, run: str) -> None:
    """Remove what waits in an area, now that it is recorded: this run's, and that of runs that are over."""
    names = [entry.name for entry in files.list(STAGING)]
    for other in {name.split("/")[2] for name in names if name.startswith(f"{STAGING}/{area}/")}:
        if other == run or f"{STAGING}/{other}{ALIVE}" not in names:
            files.delete_prefix(f"{STAGING}/{area}/{other}")
