"""ICO: the largest picture of an icon, by what it is and not by what the directory promises."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

from smp_features.images import png
from smp_features.images.first_picture import FirstPicture

_ENTRY = struct.Struct("<BBBBHHII")
_DEEPEST = 256
_SHORT_HEADER = 12
_BITMAP_HEADERS = (_SHORT_HEADER, 40, 52, 56, 64, 108, 124)
"""Bytes of the headers that bitmaps may have."""


def first_picture(data: bytes) -> FirstPicture:
    """Return the entry that is shown: the largest one, of several the one with the fewest colours.

    Args:
        data: The file.
    """
    entries = [_ENTRY.unpack_from(data, 6 + 16 * number) for number in range(int.from_bytes(data[4:6], "little"))]
    chosen = min(entries, key=_preference)
    across, down, colours, reserved, planes, bits, size, offset = chosen
    if data[offset : offset + len(png.SIGNATURE)] == png.SIGNATURE:
        return replace(png.first_picture(data[offset:]), format="ICO", frames=1)
    (header,) = struct.unpack_from("<I", data, offset)
    if header not in _BITMAP_HEADERS:
        return FirstPicture(data, frames=None)  # what this is, a decoder may say
    width, height = struct.unpack_from("<HH" if header == _SHORT_HEADER else "<ii", data, offset + 4)
    entry = _ENTRY.pack(across, down, colours, reserved, planes, bits, size, 6 + _ENTRY.size)
    alone = data[:4] + struct.pack("<H", 1) + entry + data[offset:]
    # A bitmap in an icon is stated at twice its height: a mask stands below it.
    return FirstPicture(alone, "ICO", (abs(width), abs(height) // 2), opaque_if_clear=True)


def _preference(entry: tuple[int, ...]) -> tuple[int, int]:
    across, down, colours, _, _, bits, _, _ = entry
    depth = bits or (math.ceil(math.log2(colours)) if colours else 0) or _DEEPEST
    return -(across or 256) * (down or 256), depth
