"""PPM: samples of any range, brought to bytes, since what white is stands in the header alone."""

from __future__ import annotations

import re

import numpy as np

from smp_features.images.first_picture import FirstPicture, cut

_GAP = rb"(?:[ \t\r\n]|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(rb"P([56])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)[ \t\r\n]")
_HEADER_BYTES = 4096
_AT_ONCE = 4_000_000
_BYTE, _MAX = 255, 65535


def first_picture(data: bytes) -> FirstPicture:
    """Return the file, rewritten in bytes where its samples have another range than theirs.

    Args:
        data: The file. Binary greys and colours (`P5`, `P6`); others are left as they are.
    """
    found = _HEADER.match(data[:_HEADER_BYTES])
    if found is None:
        return FirstPicture(data, white=float(_MAX))
    kind, width, height, top = (int(group) for group in found.groups())
    if top == _BYTE or not 0 < top <= _MAX:
        return FirstPicture(data, "PPM", (width, height))
    wide = top > _BYTE
    count = width * height * (3 if kind == 6 else 1)
    if len(data) - found.end() < count * (2 if wide else 1):
        return FirstPicture(data, "PPM", (width, height), refused=cut())
    samples = np.frombuffer(data, ">u2" if wide else "u1", count, found.end())
    parts = [
        np.rint(np.minimum(samples[at : at + _AT_ONCE], top) * float(_BYTE) / top).astype(np.uint8).tobytes()
        for at in range(0, count, _AT_ONCE)
    ]
    return FirstPicture(b"P%d %d %d 255\n" % (kind, width, height) + b"".join(parts), "PPM", (width, height))
