"""What of a file decides the pixels of its first picture, in what its format's module took from the container."""

from __future__ import annotations

from dataclasses import dataclass

from smp_features.refusals import InputRefused

MAX_FRAMES = 100_000
"""Frames or pages that are counted; files with more have an unknown number."""

MAX_BLOCKS = 1_000_000
"""Chunks or sub-blocks of a file that are walked: far beyond what an encoder writes, and about a second of work."""


class ImageRefused(InputRefused):
    """Bytes that do not decode to a picture within the limits; statuses as in `ImageFacts`."""


@dataclass(frozen=True)
class FirstPicture:
    """Bytes that hold the first picture of a file, and what a decoder does not say about it.

    Attributes:
        data: What is decoded: the file without later frames and without metadata that a decoder could trip over.
        format: Pillow's name of the file's format; null leaves it to Pillow.
        size: Pixels across and down as the header states them, before orientation; null if it was not looked at.
        frames: Frames in the file; null when they could not be counted.
        canvas: Pixels across and down of what is shown; null: those of the decoded picture.
        frame: Left, upper, right and lower edge on the canvas of what is painted there; the rest is transparent.
        clear: Sample values that mean transparent, as stored (one for grey, three for colours).
        bits: Bits of one sample.
        signed: Samples may be negative.
        white_is_zero: Samples count from white to black, and a decoder leaves them so.
        white: The value that means white where the format states it; null where it does not.
        opaque_if_clear: An alpha channel of nothing but zeros was never written.
        refused: Why the picture is not decoded at all; null if it may be.
        otherwise: What is shown where this one cannot be decoded; null if nothing is.
    """

    data: bytes
    format: str | None = None
    size: tuple[int, int] | None = None
    frames: int | None = 1
    canvas: tuple[int, int] | None = None
    frame: tuple[int, int, int, int] | None = None
    clear: tuple[int, ...] | None = None
    bits: int = 8
    signed: bool = False
    white_is_zero: bool = False
    white: float | None = None
    opaque_if_clear: bool = False
    refused: ImageRefused | None = None
    otherwise: FirstPicture | None = None


def cut() -> ImageRefused:
    """Return the refusal of a file that ends within its first picture."""
    return ImageRefused("truncated", "The file ends before the picture does.")
