"""AVIF: of a sequence, the still picture that stands beside it, for where the sequence is damaged."""

from __future__ import annotations

from collections.abc import Iterator

from smp_features.images.first_picture import MAX_BLOCKS, FirstPicture

_SEQUENCE, _STILL = b"avis", b"avif"
_LAST_OF_ALL, _LONG_SIZE = 0, 1


def first_picture(data: bytes) -> FirstPicture:
    """Return the file, and the same file without its sequence, if it has one.

    A decoder reads all of a sequence's directory before its first frame, and refuses a file that ends in a later one.
    The picture that stands beside it for readers without animation, as encoders write it, is that first frame.

    Args:
        data: The file. Frames are left to the decoder, which finds their number in the header.
    """
    boxes = list(_boxes(data))
    kinds = [kind for kind, _, _ in boxes]
    if not {b"ftyp", b"meta", b"moov"} <= set(kinds):
        return FirstPicture(data)
    still = bytearray(data)
    for kind, start, end in boxes:
        if kind == b"ftyp":
            still[start:end] = data[start:end].replace(_SEQUENCE, _STILL)
        elif kind == b"moov":
            still[start + 4 : start + 8] = b"free"
        elif end > len(data):
            still[start : start + 4] = (len(data) - start).to_bytes(4, "big")
    return FirstPicture(data, otherwise=FirstPicture(bytes(still), "AVIF", frames=None))


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Return kind, start and end of the boxes of a file; the last may end beyond it."""
    at = 0
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            return
        size = int.from_bytes(data[at : at + 4], "big")
        if size == _LONG_SIZE:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        end = len(data) if size == _LAST_OF_ALL else at + size
        if end < at + 8:
            return
        yield data[at + 4 : at + 8], at, end
        at = end
