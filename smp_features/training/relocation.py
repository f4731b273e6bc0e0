"""Gives MLflow's default store the addresses of its root's present place: it records absolute ones of when it was made.

Without that, a lake that was moved reads the models of the old place, and writes new ones there.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

logger = logging.getLogger(__name__)

ARTIFACTS = "mlflow-artifacts"
"""The folder under the root."""

_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def was_moved(recorded: str, present: str) -> bool:
    """Return whether an experiment's address is that of another root's folder of artifacts.

    Args:
        recorded: The experiment's artifact location.
        present: The address that it would be given today.
    """
    return recorded != present and recorded.startswith("file:") and recorded.endswith(f"/{ARTIFACTS}")


def relocate(database: Path, recorded: str, present: str) -> None:
    """Rewrite every address below the folder recorded, all or none of them; others stay.

    Args:
        database: MLflow's SQLite file.
        recorded: The address of the folder of artifacts, as recorded.
        present: Its address today.
    """
    changed = 0
    with closing(sqlite3.connect(database, timeout=60)) as store, store:
        for table, columns in _ADDRESSES.items():
            there = {row[1] for row in store.execute(f"PRAGMA table_info({table})")}
            for column in there.intersection(columns):
                changed += store.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (present, len(recorded) + 1, recorded, len(recorded) + 1, f"{recorded}/"),
                ).rowcount
    logger.info("the root was moved: %d addresses of %s now lie under %s", changed, recorded, present)
