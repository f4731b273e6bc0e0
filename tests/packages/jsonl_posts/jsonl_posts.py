"""Posts in two files of JSON lines, and pictures in a folder beside them."""

import json
from pathlib import Path

from smp_features.config import SourceConfig
from smp_features.errors import SourceError
from smp_features.sources.base import ImageRoot, Refusal, RowSource


class Settings(SourceConfig):
    """Attributes: pictures: folder of the pictures, relative to the path."""

    pictures: str | None = None


class JsonLines(RowSource):
    """A folder of `train.jsonl`, `test.jsonl`, or both."""

    Settings = Settings
    settings: Settings

    @property
    def splits(self):
        return tuple(split for split in ("train", "test") if self._file(split).is_file())

    def check(self):
        if self.settings.path is None or not self.splits:
            raise SourceError(f"{self.place} holds neither train.jsonl nor test.jsonl.")

    def image_root(self, split):
        return self.settings.pictures and ImageRoot(Path(self.settings.path) / self.settings.pictures)

    def rows(self, split):
        for number, line in enumerate(self._file(split).read_text().splitlines()[: self.settings.limit], 1):
            row = json.loads(line)
            yield row if "draft" not in row else Refusal(f"{split}:{number}", row["pid"], "draft", "Not published.")

    def _file(self, split):
        return Path(self.settings.path) / f"{split}.jsonl"
