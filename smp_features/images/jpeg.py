"""JPEG: its segments, so that a file is known by its scans and frames before a pixel is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from smp_features.images.first_picture import MAX_BLOCKS, MAX_FRAMES, FirstPicture, ImageRefused

MAX_SCANS = 100
"""Scans of one picture. Encoders write about ten; each costs a pass over the whole picture, and a few hundred bytes
can hold one, so that a thousand of them keep a decoder busy for minutes. libtiff stops at the same number."""

_MAX_SEGMENTS = 100_000
"""Segments before the pixels. Each is an object to a decoder, and four bytes can be one."""

_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9
_NUMBER_OF_PICTURES = 0xB001
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_JFIF, _EXIF, _ADOBE, _COMMENT, _MP_INDEX = 0xE0, 0xE1, 0xEE, 0xFE, 0xE2
_METADATA = {*range(0xE0, 0xF0), _COMMENT} - {_JFIF, _EXIF, _ADOBE}
"""Segments that decide no pixel here: colour profiles, indexes of further pictures, comments."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


@dataclass(frozen=True)
class Segment:
    """A marker with what follows it up to the next one's place.

    Attributes:
        marker: The marker's second byte.
        start: Where the marker begins.
        body: Where what it says begins, behind its length.
        end: Where the segment ends; of a scan, its header, not its data.
    """

    marker: int
    start: int
    body: int
    end: int


def first_picture(data: bytes) -> FirstPicture:
    """Return the first picture without the metadata that decides no pixel.

    Args:
        data: The file.
    """
    header: list[Segment] = []
    size, scans, end, stated = None, 0, None, 1
    for segment in walk(data):
        if segment.marker in _FRAME_HEADERS and size is None:
            down, across = struct.unpack_from(">HH", data, segment.body + 1)
            size = across, down
        if segment.marker == _SCAN:
            scans += 1
            if scans > MAX_SCANS:
                refused = ImageRefused("too_many_scans", f"The picture has more than {MAX_SCANS} scans.")
                return FirstPicture(data, "JPEG", size, None, refused=refused)
        elif segment.marker == _END:
            end = segment.end
        elif not scans:
            header.append(segment)
            if len(header) > _MAX_SEGMENTS:
                refused = ImageRefused("decode_error", f"The file has more than {_MAX_SEGMENTS:,} segments.")
                return FirstPicture(data, "JPEG", size, None, refused=refused)
            if segment.marker == _MP_INDEX and data[segment.body : segment.body + 4] == b"MPF\0":
                stated = _stated_pictures(data[segment.body + 4 : segment.end])
    if not scans or not header:
        return FirstPicture(data, "JPEG" if size else None, size)
    kept = [data[segment.start : segment.end] for segment in header if segment.marker not in _METADATA]
    if b' hdrgm:Version="' in b"".join(kept):
        stated = 1  # the second picture says how bright the first is on other screens
    # What an index of pictures states is believed where they are there.
    frames = stated if stated == 1 or (end and _pictures_behind(data, end, stated - 1) == stated - 1) else None
    body = b"".join([data[:2], *kept, data[header[-1].end :]])
    return FirstPicture(body, "JPEG" if stated == 1 else "MPO", size, frames)


def _stated_pictures(index: bytes) -> int:
    """Return the pictures that an index, a TIFF directory, says there are; 1 if it cannot be read."""
    order = "<" if index[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", index, 4)
        (entries,) = struct.unpack_from(f"{order}H", index, start)
        for number in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHII", index, start + 2 + 12 * number)
            if tag == _NUMBER_OF_PICTURES:
                return min(max(1, value), MAX_FRAMES)
    except struct.error:
        pass
    return 1


def _pictures_behind(data: bytes, at: int, most: int) -> int:
    """Return how many whole pictures follow, up to `most`."""
    found = 0
    while found < most and (start := data.find(b"\xff\xd8\xff", at)) >= 0:
        ends = [segment.end for segment in walk(data, start) if segment.marker == _END]
        if not ends:
            break
        found, at = found + 1, ends[0]
    return found


def is_complete(data: bytes) -> bool:
    """Return whether the scans, taken together, state every coefficient of every component to its last bit.

    Args:
        data: A file without an end marker; whether its last scan is whole cannot be told from its segments.
    """
    missing_bits: dict[tuple[int, int], int] = {}
    latest = Segment(0, 0, 0, 0)
    for segment in walk(data):
        latest = segment
        body = data[segment.body : segment.end]
        if segment.marker in _FRAME_HEADERS:
            components = body[6 : 6 + 3 * body[5] : 3]
            missing_bits = {(component, position): 1 for component in components for position in range(64)}
        elif segment.marker == _SCAN:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            for component in body[1 : 1 + 2 * count : 2]:
                for position in range(first, min(last, 63) + 1):
                    missing_bits[component, position] = bits & 15
    broken_off = latest.marker != _SCAN or _AFTER_SCAN.search(data, latest.end)  # a decoder stops at what is no scan
    return bool(missing_bits) and not any(missing_bits.values()) and not broken_off


def walk(data: bytes, start: int = 0) -> Iterator[Segment]:
    """Return the segments of a picture up to its end marker, as a decoder goes through them.

    Args:
        data: The file; markers within other segments, such as those of a thumbnail, are passed over.
        start: Where the picture begins.
    """
    at, behind_scan = start + 2, False
    for _ in range(MAX_BLOCKS):
        found = (_AFTER_SCAN if behind_scan else _MARKER).search(data, at)
        if found is None:
            return
        marker = found.group(1)[0]
        if marker in _STANDALONE:
            at = found.end()
            continue
        if marker == _END:
            yield Segment(marker, found.start(), found.end(), found.end())
            return
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        if length < 2:
            return
        end = found.end() + length
        yield Segment(marker, found.start(), found.end() + 2, min(end, len(data)))
        at, behind_scan = end, marker == _SCAN
