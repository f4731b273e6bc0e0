"""Which contents each extractor is wanted for, and the table its rows go to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smp_features.errors import UsageError, nearest
from smp_features.extraction import statuses


@dataclass(frozen=True)
class Target:
    """One extractor's place among the tables.

    Attributes:
        name: The extractor's.
        contents: Table of contents it reads, `images` or `texts`.
        value: The contents' column that it reads.
        key: The contents' key.
        table: The feature table.
        noun: What one of its rows is called.
    """

    name: str
    contents: str
    value: str
    key: str
    table: str
    noun: str

    @property
    def stage(self) -> str:
        """Its name in `runs` and on the command line."""
        return f"extract/{self.name}"

    def counted(self, rows: int) -> str:
        """Return a number of its rows in words: `1 caption`, `2,000 captions`."""
        return f"{rows:,} {self.noun if rows == 1 else self.table.replace('_', ' ')}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tables that decide what is wanted and left."""
        more = ("captions",) if self.name == "clip_text" else ()
        return ("posts", self.contents, self.table, "attempts", *more)

    def is_error(self, status: str) -> bool:
        """Whether a permanent status counts towards the error share: an empty title is a fact, not an error."""
        return status != statuses.OK and not (self.contents == "texts" and status == "empty")


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("caption", "images", "bytes", "image_key", "captions", "caption"),
        Target("clip_image", "images", "bytes", "image_key", "image_embeddings", "image embedding"),
        Target("clip_text", "texts", "text", "text_key", "text_embeddings", "text embedding"),
        Target("perplexity", "texts", "text", "text_key", "perplexities", "perplexity"),
    )
}
"""By extractor name, in the order they run: captions first, since the text encoder also reads them.

Wanted are only contents that current posts refer to: pictures for `caption` and `clip_image`, titles and the configured
captioner's captions for `clip_text`, and titles alone for `perplexity`, which no feature asks of a caption.
"""


BOTH_TOWERS = {"clip": ("clip_image", "clip_text")}
"""What `clip` stands for where extractors are named: one model, two encoders."""


def chosen(names: Sequence[str] | None) -> list[Target]:
    """Return the named targets, all of them for None, in the order they run; `clip` names both of CLIP's encoders.

    Raises:
        UsageError: There is no such extractor.
    """
    wanted = [each for name in names or () for each in BOTH_TOWERS.get(name, (name,))]
    for name in wanted:
        if name not in TARGETS:
            raise UsageError(f"There is no extractor '{name}'.", nearest(name, [*TARGETS, *BOTH_TOWERS]))
    return [target for name, target in TARGETS.items() if not wanted or name in wanted]
