"""TIFF: the first page without the links to the later ones, and what its tags say about depth and white."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from smp_features.images.first_picture import MAX_FRAMES, FirstPicture, ImageRefused

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _FORMAT = 256, 257, 258, 262, 277, 339
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}
"""Bytes of the integers that these tags are stated in, by the type's number."""
_BYTES = (1, 2, 6, 7)
"""Types whose values a decoder keeps as they stand in the file; of all others it makes an object for each."""
_MAX_VALUES = 1_000_000
"""Values of one tag: a picture of 64 megapixels in tiles of 16 x 16 has a quarter of that."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _SIGNED = 0, 1, 2
_DECODED_RIGHT = (1, 2, 4, 8)
"""Bits of a single unsigned sample whose photometric tag a decoder heeds; it leaves deeper ones inverted."""


@dataclass(frozen=True)
class _Layout:
    """Byte order and field sizes: those of TIFF, or of BigTIFF."""

    order: str
    big: bool

    def number(self, data: bytes, at: int, size: int) -> int:
        raw = data[at : at + size]
        if len(raw) < size:
            raise IndexError(at)
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    @property
    def link(self) -> int:
        return 8 if self.big else 4

    @property
    def count(self) -> int:
        return 8 if self.big else 2

    @property
    def entry(self) -> int:
        return 20 if self.big else 12


@dataclass(frozen=True)
class _Tag:
    value: int
    at: int
    """Where the value stands in the file."""


def first_picture(data: bytes) -> FirstPicture:
    """Return the file with its first page alone, and how its samples are meant.

    A page's pixels do not depend on the pages behind it, but a decoder that looks for them trips where they are cut,
    are of a kind it does not know, or lead in a circle; then the number of pages is null.

    Args:
        data: The file.
    """
    layout = _Layout("<" if data[:2] == b"II" else ">", data[2 if data[:2] == b"II" else 3] == 43)
    start = layout.number(data, 8 if layout.big else 4, layout.link)
    tags, most_values = _tags(data, layout, start)
    edited = bytearray(data)
    link = _link_at(data, layout, start)
    if link + layout.link <= len(data):
        edited[link : link + layout.link] = bytes(layout.link)
    bits, samples = _value(tags, _BITS, 1), _value(tags, _SAMPLES, 1)
    signed = _value(tags, _FORMAT, 1) == _SIGNED
    photometric = tags.get(_PHOTOMETRIC)
    inverted = (
        photometric is not None
        and photometric.value == _WHITE_IS_ZERO
        and (bits not in _DECODED_RIGHT or samples > 1 or signed)
    )
    if inverted and photometric is not None:
        struct.pack_into(f"{layout.order}H", edited, photometric.at, _BLACK_IS_ZERO)
    size = _value(tags, _WIDTH, 0), _value(tags, _HEIGHT, 0)
    tile = _value(tags, _TILE_WIDTH, 0), _value(tags, _TILE_HEIGHT, 0)
    larger = tile if tile[0] * tile[1] > size[0] * size[1] + 4096 * 4096 else size  # a decoder unpacks whole tiles
    return FirstPicture(
        bytes(edited),
        "TIFF",
        larger,
        _count_pages(data, layout, start),
        bits=bits,
        signed=signed,
        white_is_zero=inverted,
        refused=None if most_values <= _MAX_VALUES else _endless(),
    )


def _endless() -> ImageRefused:
    return ImageRefused("decode_error", f"A tag of the file has more than {_MAX_VALUES:,} values.")


def _tags(data: bytes, layout: _Layout, start: int) -> tuple[dict[int, _Tag], int]:
    """Return the first value of each tag of whole numbers, and how many values the longest tag has."""
    tags: dict[int, _Tag] = {}
    most_values = 0
    first = start + layout.count
    for at in range(first, first + layout.entry * layout.number(data, start, layout.count), layout.entry):
        if at + layout.entry > len(data):
            break
        tag, kind = layout.number(data, at, 2), layout.number(data, at + 2, 2)
        count = layout.number(data, at + 4, layout.link)
        if kind not in _BYTES and count <= len(data):  # a tag longer than the file is skipped by decoders
            most_values = max(most_values, count)
        size = _SIZES.get(kind)
        if size is None:
            continue
        value_at = at + 4 + layout.link
        if size * count > layout.link:
            value_at = layout.number(data, value_at, layout.link)
        if value_at + size <= len(data):
            tags[tag] = _Tag(layout.number(data, value_at, size), value_at)
    return tags, most_values


def _value(tags: dict[int, _Tag], tag: int, default: int) -> int:
    return tags[tag].value if tag in tags else default


def _link_at(data: bytes, layout: _Layout, page: int) -> int:
    """Return where a page says where the next one is."""
    return page + layout.count + layout.entry * layout.number(data, page, layout.count)


def _count_pages(data: bytes, layout: _Layout, page: int) -> int | None:
    seen: set[int] = set()
    while page:
        if page in seen or len(seen) >= MAX_FRAMES or page + layout.count > len(data):
            return None
        seen.add(page)
        link = _link_at(data, layout, page)
        if link == page + layout.count or link + layout.link > len(data):
            return None  # a page without tags, or a cut one
        page = layout.number(data, link, layout.link)
    return len(seen)
