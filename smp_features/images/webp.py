"""WebP: the first frame as a file of its own, without the frames and the metadata around it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smp_features.images.first_picture import MAX_BLOCKS, MAX_FRAMES, FirstPicture, cut

_ANIMATED, _XMP, _EXIF, _ALPHA = 0x02, 0x04, 0x08, 0x10
_FIRST_CHUNK = 12


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    body: bytes
    whole: bool


def first_picture(data: bytes) -> FirstPicture:
    """Return the first frame, and its place on the canvas; what lies outside of it is transparent.

    Args:
        data: The file.
    """
    chunks = list(_chunks(data, _FIRST_CHUNK))
    header = chunks[0]
    metadata = [chunk for chunk in chunks if chunk.kind in (b"EXIF", b"XMP ") and chunk.whole]
    if header.kind != b"VP8X":
        return _still(chunks, [], _size_of(header))
    canvas = _three(header.body, 4) + 1, _three(header.body, 7) + 1
    if not header.body[0] & _ANIMATED:
        return _still(chunks[1:], metadata, canvas)
    frames = [chunk for chunk in chunks if chunk.kind == b"ANMF"]
    if not frames:
        return FirstPicture(data, "WEBP", canvas, None, refused=cut())
    place = frames[0].body
    left, upper, across, down = 2 * _three(place, 0), 2 * _three(place, 3), _three(place, 6) + 1, _three(place, 9) + 1
    still = _still(list(_chunks(place, 16)), metadata, (across, down))
    whole = all(chunk.whole for chunk in chunks) and len(frames) <= MAX_FRAMES
    return FirstPicture(
        still.data,
        "WEBP",
        canvas,
        len(frames) if whole else None,
        canvas=canvas,
        frame=(left, upper, left + across, upper + down),
        refused=still.refused,
    )


def _still(chunks: Sequence[_Chunk], metadata: Sequence[_Chunk], size: tuple[int, int]) -> FirstPicture:
    """Return the picture among these chunks as a file of `size`, with the metadata that states its orientation."""
    alpha = next((chunk for chunk in chunks if chunk.kind == b"ALPH"), None)
    pixels = next((chunk for chunk in chunks if chunk.kind in (b"VP8 ", b"VP8L")), None)
    if pixels is None or not pixels.whole:
        return FirstPicture(b"", "WEBP", size, None, refused=cut())
    parts = [pixels, *metadata] if alpha is None else [alpha, pixels, *metadata]
    if len(parts) > 1:
        lossless_alpha = pixels.kind == b"VP8L" and len(pixels.body) > 4 and pixels.body[4] & 0x10
        flags = _ALPHA if alpha or lossless_alpha else 0
        flags |= _EXIF if any(chunk.kind == b"EXIF" for chunk in metadata) else 0
        flags |= _XMP if any(chunk.kind == b"XMP " for chunk in metadata) else 0
        header = struct.pack("<BBBB", flags, 0, 0, 0) + b"".join((side - 1).to_bytes(3, "little") for side in size)
        parts = [_Chunk(b"VP8X", header, True), *parts]
    body = b"".join(_packed(chunk) for chunk in parts)
    return FirstPicture(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, "WEBP", size)


def _packed(chunk: _Chunk) -> bytes:
    return chunk.kind + struct.pack("<I", len(chunk.body)) + chunk.body + b"\0" * (len(chunk.body) % 2)


def _chunks(data: bytes, at: int) -> Iterator[_Chunk]:
    for _ in range(MAX_BLOCKS):
        if at + 8 > len(data):
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield _Chunk(data[at : at + 4], data[at + 8 : at + 8 + length], at + 8 + length <= len(data))
        at += 8 + length + length % 2


def _size_of(pixels: _Chunk) -> tuple[int, int]:
    if pixels.kind == b"VP8L":
        packed = int.from_bytes(pixels.body[1:5], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    across, down = struct.unpack_from("<HH", pixels.body, 6)
    return across & 0x3FFF, down & 0x3FFF


def _three(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 3], "little")
