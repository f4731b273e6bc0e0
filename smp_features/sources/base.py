"""What a source is: where posts, labels, profiles and picture references come from. Nothing else knows.

A source is a subclass of `RowSource`, which reads rows one after the other on the driver, or of `FrameSource`, which
gives Spark data frames whose rows never pass through the driver. It is found by `source.kind`, among our own and by
the entry-point group `smp_features.sources` of another package.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import unquote

from smp_features import plugins
from smp_features.config import Config, SourceConfig
from smp_features.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

EARLIEST_S = 86_400
"""Seconds since 1970 before which a time is a counter or a flag: the first day."""
LATEST_S = 4_102_444_800
"""2100-01-01. What lies after it was not given in seconds."""
MAX_POPULARITY = 64.0

_SURROGATE = re.compile("[\ud800-\udfff]")


def repaired(text: str) -> str:
    """Return a text that can be written: lone surrogates, which no encoding has, become U+FFFD.

    >>> repaired("a\\ud83db") == "a\\ufffdb"
    True
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


Row = dict[str, Any]
"""A post, by column.

Required are `pid`, `uid` and `event_ts` (Unix microseconds, or a datetime with a time zone), and on train posts
`popularity`, log2(views + 1); on test posts it is not read. Optional is every other column of `posts` and
`user_profiles` that a source can know (`ingest/staged.py` lists them), such as `title`, `category` or `photo_count`.
`image_path` refers to a picture, relative to the split's image root. `source_row` says where the row stands, so that a
person finds it again; by default the split, and the row's number or, of a frame, its pid.
"""


@dataclass(frozen=True)
class Refusal:
    """A source row that cannot become a post.

    Attributes:
        source_row: Where it stands, such as `train:17`.
        pid: As stated; null if that is the reason.
        reason: `no_pid`, `no_uid`, `bad_time`, `bad_label`, `duplicate_pid`, `conflicting_pid`, of an external
            profile `bad_profile`, or a source's own.
        detail: Why, without any content.
    """

    source_row: str
    pid: str | None
    reason: str
    detail: str


@dataclass(frozen=True)
class ImageRoot:
    """Where image paths start.

    Attributes:
        folder: The folder that every image must lie in; every worker sees it at this path.
        prefix: Leading component that a path may have and the folder stands for, such as `train`; null if none.
    """

    folder: Path
    prefix: str | None = None

    def relative(self, image_path: str) -> str:
        """Return a path relative to the folder, without `./` and doubled separators.

        >>> ImageRoot(Path("images"), "train").relative("./train//7.jpg")
        '7.jpg'
        """
        path = _plain(image_path)
        if self.prefix is not None and path.startswith(self.prefix + "/"):
            return path[len(self.prefix) + 1 :]
        return path

    def spellings(self, image_path: str) -> Iterator[str]:
        """Yield a path relative to the folder as it is stated, and then as other systems would write it.

        That is with `/` for `\\`, with the characters that `%20` and its like stand for, and with the ending in small
        and in capital letters.

        >>> list(ImageRoot(Path("images"), "train").spellings("train\\\\a%20b.JPG"))[-1]
        'a b.jpg'
        """
        seen = set()
        for path in (image_path, image_path.replace("\\", "/"), unquote(image_path.replace("\\", "/"))):
            relative = self.relative(path)
            stem, dot, ending = relative.rpartition(".")
            for spelt in (relative, f"{stem}{dot}{ending.upper()}", f"{stem}{dot}{ending.lower()}"):
                if spelt not in seen:
                    seen.add(spelt)
                    yield spelt


def _plain(path: str) -> str:
    """Return a path without `./` and doubled separators; one that begins with a separator still does."""
    if "//" in path or "./" in path:
        first = "/" if path.startswith("/") else ""
        return first + "/".join(part for part in path.split("/") if part not in ("", "."))
    return path


@dataclass(frozen=True)
class Outline:
    """What an evaluation needs to know of a post.

    Attributes:
        pid: The post.
        uid: The user.
        category: Top-level category; null if missing.
    """

    pid: str
    uid: str
    category: str | None


@dataclass(frozen=True)
class Frames:
    """A source as Spark data frames.

    Attributes:
        posts: One row per post, with the columns of `Row` and `split` (`train` or `test`).
        external: External profiles: `alias`, and counts by their names in `user_profiles`; None if there are none.
        refused: Rows that the source itself refuses, with the fields of `Refusal` and `split`; None if there are none.
    """

    posts: DataFrame
    external: DataFrame | None = None
    refused: DataFrame | None = None


class Source(ABC):
    """A place that posts come from.

    Making one reads nothing. Every kind has a class of settings: a subclass of `SourceConfig` whose fields are the keys
    that the section `source` may have.

    Args:
        settings: The section `source`.
        scratch: A local folder for temporary files.

    Attributes:
        quirks: What was met and is worth knowing, counted by a name for people; complete when all rows were read.
    """

    Settings: ClassVar[type[SourceConfig]] = SourceConfig

    external_name: ClassVar[str | None] = None
    """What declarations call the external profiles, such as the name of their file; None if there are none."""

    def __init__(self, settings: SourceConfig, scratch: Path) -> None:
        self.settings = settings
        self.scratch = scratch
        self.quirks: Counter[str] = Counter()

    @property
    def place(self) -> str:
        """What to call the source in messages."""
        return f"{self.settings.kind}: {self.settings.path}" if self.settings.path else self.settings.kind

    @property
    def generated(self) -> bool:
        """Whether the posts were made up by `smp generate`, which the bundled demo models were trained for."""
        return False

    @abstractmethod
    def check(self) -> None:
        """Refuse what can be seen at once: a missing place or setting. It takes seconds and needs no Spark.

        Raises:
            SourceError: The source is not there, or is not what its kind reads.
            ConfigError: A setting is missing.
        """

    def image_root(self, split: Split) -> ImageRoot | None:
        """Return where the image paths of a split start from; None if the source refers to no pictures."""
        return None

    def details(self, split: Split) -> str | None:
        """Return what a person may want to know of a split, as the end of a line; None for nothing."""
        return None


class RowSource(Source):
    """A source that is read row by row on the driver, in flat memory."""

    @property
    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """The splits that are there, `train` first."""

    @abstractmethod
    def rows(self, split: Split) -> Iterator[Row | Refusal]:
        """Yield one post or refusal per source row of a split, in order, at most `limit` of them.

        Raises:
            SourceError: The source is damaged; with file and line. Nothing has been written then.
        """

    def external_profiles(self) -> Iterator[Row | Refusal]:
        """Yield the external profiles: `alias`, and counts by their names in `user_profiles`; or refusals.

        Raises:
            SourceError: The source is damaged; with file and line.
        """
        return iter(())

    def outlines(self, split: Split) -> Iterator[Outline]:
        """Yield what an evaluation needs to know of the posts of a split.

        Raises:
            SourceError: The source is damaged; with file and line.
        """
        for row in self.rows(split):
            if not isinstance(row, Refusal):
                yield Outline(row["pid"], row["uid"], row.get("category"))


class FrameSource(Source):
    """A source that Spark reads, such as a table of a catalog; its rows never pass through the driver."""

    @abstractmethod
    def frames(self, session: SparkSession) -> Frames:
        """Return the source as data frames, cheaply: nothing is computed yet.

        Raises:
            SourceError: The source is not there, or lacks a column.
        """


def source_class(settings: SourceConfig) -> type[RowSource] | type[FrameSource]:
    """Return the class that reads a source.

    Raises:
        ConfigError: There is no such kind, or it is no source.
    """
    found = plugins.find(plugins.SOURCES, settings.kind, "source.kind")
    if not (isinstance(found, type) and issubclass(found, RowSource | FrameSource)):
        raise ConfigError(
            f"source.kind: '{settings.kind}' names {getattr(found, '__name__', found)}, which is no source.",
            "It must be a subclass of smp_features.sources.base.RowSource or FrameSource.",
        )
    return found


def open_source(config: Config, scratch: Path) -> RowSource | FrameSource:
    """Return the configured source, having read nothing of it.

    Args:
        config: Its section `source`.
        scratch: A local folder for temporary files.

    Raises:
        ConfigError: There is no such kind, or it is no source.
    """
    return source_class(config.source)(config.source, scratch)
