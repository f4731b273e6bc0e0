"""Lakehouses that hold posts made of a few words, and the stage `extract` on them with the fake extractors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from extraction_fakes import fakes, vector

from smp_features.config import Config, read_models
from smp_features.extractors import build_extractors
from smp_features.extractors.base import Extractor
from smp_features.lake.tables import Lakehouse
from smp_features.runs import Summary, new_run_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def key_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def slow(count: int) -> list[str]:
    """Distinct texts that take the fakes a fifth of a second each."""
    return [f"slow 0.2{n:03d}" for n in range(count)]


class Bench:
    """One lakehouse, its posts, and the fakes that `extract` finds there."""

    def __init__(self, lakehouse: Lakehouse, folder: Path) -> None:
        self.lakehouse = lakehouse
        self.config = lakehouse.config
        self._log = folder / "fakes.log"
        self._log.touch()
        self._posts = 0
        self._contents: dict[str, set[str]] = {}
        self.use()
        self.configure(max_error_share=1.0)  # most tests are of inputs that fail

    def use(self, **fields: Any) -> None:
        """Configure the fakes."""
        self._change(models=fakes(str(self._log), **fields))

    def add_model(self, name: str, **settings: Any) -> None:
        """Configure a further model, or another for a role."""
        self._change(models=read_models({**self.config.models, name: settings}))

    @property
    def extractors(self) -> dict[str, Extractor]:
        """The configured extractors by name."""
        return build_extractors(self.config.models)

    def configure(self, **extraction: Any) -> Config:
        """Change settings of extraction."""
        changed = self.config.extraction.model_copy(update=extraction)
        self._change(extraction=changed)
        return self.config

    def _change(self, **sections: Any) -> None:
        self.config = self.config.model_copy(update=sections)
        self.lakehouse = Lakehouse(self.lakehouse.session, self.config)

    def post(self, *pairs: tuple[str | None, str], image_status: str = "ok") -> None:
        """Add posts of (picture, title); no picture is None."""
        posts, images, texts = [], {}, {}
        for picture, title in pairs:
            self._posts += 1
            posts.append(
                {
                    "pid": str(self._posts), "split": "train", "uid": "u", "event_ts": NOW, "known_at": NOW,
                    "title": title, "title_key": key_of(title), "tags": "", "source_row": f"train:{self._posts}",
                    "image_key": None if picture is None else key_of(picture),
                    "image_status": "missing" if picture is None else image_status, "row_hash": str(self._posts),
                }
            )  # fmt: skip
            texts[title] = {"text_key": key_of(title), "shard": key_of(title)[0], "text": title}
            if picture is not None:
                error = None if image_status == "ok" else "It cannot be used."
                images[picture] = {
                    "image_key": key_of(picture), "shard": key_of(picture)[0], "bytes": picture.encode(),
                    "status": image_status, "error": error,
                }  # fmt: skip
        self.lakehouse.append("posts", posts)
        for table, rows in (("texts", texts), ("images", images)):
            known = self._contents.setdefault(table, set())
            self.lakehouse.append(table, [row for content, row in rows.items() if content not in known])
            known |= set(rows)

    def post_titles(self, *titles: str) -> None:
        """Add posts without a picture."""
        self.post(*((None, title) for title in titles))

    def extract(self, *names: str, run: str | None = None) -> dict[str, Summary]:
        """Run the stage; summaries by extractor name."""
        from smp_features.extraction import extract

        done = extract(self.lakehouse.session, self.config, names or None, run=run or new_run_id())
        return {summary.stage.removeprefix("extract/"): summary for summary in done}

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """All rows of a table, sorted, without the time they were computed."""
        chosen = columns or [c for c in self.lakehouse.spec(table).column_names if c != "computed_at"]
        rows = self.lakehouse.read(table).select(*chosen).collect()
        return sorted((tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in rows), key=repr)

    def check_text_vectors(self, texts: Sequence[str], seed: str = "1") -> None:
        """Each text has its one row with the vector that an undisturbed run computes, and no attempt failed."""
        rows = self.rows("text_embeddings", "text_key", "embedding")
        assert sorted(key for key, _ in rows) == sorted(key_of(text) for text in texts)
        found = {key: np.float32(values) for key, values in rows}
        assert all((found[key_of(text)] == vector(seed, text)).all() for text in texts)
        assert self.rows("attempts") == []

    def statuses(self, table: str, key: str) -> dict[str, str]:
        """Status by content key."""
        return dict(self.rows(table, key, "status"))

    def log(self, *words: str) -> list[str]:
        """Lines that the fakes wrote, holding all these words."""
        return [line for line in self._log.read_text().splitlines() if all(word in line.split() for word in words)]

    def versions(self) -> dict[str, int]:
        """Versions of all tables."""
        return self.lakehouse.versions(self.lakehouse.specs)

    def staging(self) -> list[str]:
        """Files and folders in staging, by path."""
        base = Path(self.lakehouse.folder("staging"))
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())
