"""GIF: how many frames there are, and where on the canvas the first is painted."""

from __future__ import annotations

import struct

from smp_features.images.first_picture import MAX_BLOCKS, MAX_FRAMES, FirstPicture

_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C


def first_picture(data: bytes) -> FirstPicture:
    """Return the file, with its frames counted and the first one's place; no frame is decoded.

    Args:
        data: The file; pixels outside of the first frame are transparent, whatever its background colour.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    place, frames = _walk(data, at)
    if place is None:
        return FirstPicture(data, "GIF", (width, height), frames)
    left, upper, across, down = place
    size = max(width, left + across), max(height, upper + down)  # a canvas grows to hold its first frame
    return FirstPicture(data, "GIF", size, frames, canvas=size, frame=(left, upper, left + across, upper + down))


def _walk(data: bytes, at: int) -> tuple[tuple[int, int, int, int] | None, int | None]:
    """Return left, upper, width and height of the first frame, and the number of frames, null if one is cut."""
    place = None
    frames = blocks = 0
    while at < len(data) and data[at] != _TRAILER:
        if data[at] == _EXTENSION:
            at += 2
        elif data[at] == _IMAGE:
            if at + 11 > len(data):
                return place, None
            *corner, flags = struct.unpack_from("<HHHHB", data, at + 1)
            place = place or (corner[0], corner[1], corner[2], corner[3])
            frames += 1
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            at += 1  # decoders skip what begins no block
            blocks += 1
            continue
        while True:  # the sub-blocks of either
            if at >= len(data) or blocks > MAX_BLOCKS:
                return place, None
            length = data[at]
            at += 1 + length
            blocks += 1
            if not length:
                break
        if frames > MAX_FRAMES:
            return place, None
    return place, frames if at <= len(data) and blocks <= MAX_BLOCKS else None
