"""GIF: the first frame alone, its place on the canvas, and how many frames there are."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from smp_features.images.first_picture import MAX_BLOCKS, MAX_FRAMES, FirstPicture

_TRAILER, _EXTENSION, _IMAGE, _CONTROL = 0x3B, 0x21, 0x2C, 0xF9


@dataclass(frozen=True)
class _Frame:
    """Where the first frame stands in the file, and on the canvas.

    Attributes:
        control: Start and end of the extension that says which colour of it is transparent; null without one.
        start: Where the frame begins.
        end: Where it ends, at most the end of the file.
        place: Left, upper, width and height.
    """

    control: tuple[int, int] | None
    start: int
    end: int
    place: tuple[int, int, int, int]


def first_picture(data: bytes) -> FirstPicture:
    """Return the first frame as a file of its own, its place, and the number of frames; none is decoded.

    Args:
        data: The file; pixels outside of the first frame are transparent, whatever its background colour.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    header = 13 + _bytes_of_palette(flags)
    frame, frames = _walk(data, header)
    if frame is None:
        return FirstPicture(data, "GIF", (width, height), frames)
    left, upper, across, down = frame.place
    size = max(width, left + across), max(height, upper + down)  # a canvas grows to hold its first frame
    control = b"" if frame.control is None else data[slice(*frame.control)]
    alone = data[:header] + control + data[frame.start : frame.end]
    place = (left, upper, left + across, upper + down)
    return FirstPicture(alone, "GIF", size, frames, canvas=size, frame=place)


def _bytes_of_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _walk(data: bytes, at: int) -> tuple[_Frame | None, int | None]:
    """Return the first frame, and the number of frames, null if one is cut."""
    first: _Frame | None = None
    control: tuple[int, int] | None = None
    frames = blocks = 0
    while at < len(data) and data[at] != _TRAILER:
        start, kind = at, data[at]
        if kind == _EXTENSION:
            at += 2
        elif kind == _IMAGE and at + 11 <= len(data):
            *place, flags = struct.unpack_from("<HHHHB", data, at + 1)
            frames += 1
            at += 11 + _bytes_of_palette(flags)
        elif kind == _IMAGE:
            return first, None
        else:
            at += 1  # decoders skip what begins no block
            blocks += 1
            continue
        whole = True
        while whole:  # the sub-blocks of either
            whole = at < len(data) and blocks <= MAX_BLOCKS
            length = data[at] if whole else 0
            at += 1 + length
            blocks += 1
            if not length:
                break
        if kind == _IMAGE and first is None:
            first = _Frame(control, start, at if whole else len(data), (place[0], place[1], place[2], place[3]))
        if kind == _EXTENSION and data[start + 1 : start + 2] == bytes([_CONTROL]):
            control = (start, at)
        if not whole or frames > MAX_FRAMES:
            return first, None
    return first, frames if at <= len(data) and blocks <= MAX_BLOCKS else None
