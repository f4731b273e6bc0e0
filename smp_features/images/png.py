"""PNG: the chunks that decide pixels, without the metadata and the later frames around them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from smp_features.images.first_picture import MAX_BLOCKS, FirstPicture, ImageRefused, cut

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_XMP = b"XML:com.adobe.xmp\0\0"
_MAX_XMP_BYTES = 1 << 20
_GREY, _COLOURS, _PALETTE = 0, 2, 3
_FRAME_CONTROL = struct.Struct(">IIIII")


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    start: int
    end: int
    whole: bool

    def body(self, data: bytes) -> bytes:
        return data[self.start + 8 : self.end - 4]

    def is_sound(self, data: bytes) -> bool:
        """Return whether the checksum fits; a decoder ignores an ancillary chunk where it does not."""
        stated = int.from_bytes(data[self.end - 4 : self.end], "big")
        return self.whole and zlib.crc32(data[self.start + 4 : self.end - 4]) == stated


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def first_picture(data: bytes) -> FirstPicture:
    """Return the first picture that is shown: of an animation its first frame, else the only one.

    Text, colour profiles and other chunks that decide no pixel here are left out, and so are ancillary chunks with a
    wrong checksum, which decoders ignore. Transparent samples of grey and colour are told apart from the pixels, since
    they are stated at the file's own depth.

    Args:
        data: The file.
    """
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    parts = [SIGNATURE]
    animation: list[_Chunk] = []
    clear: tuple[int, ...] | None = None
    palette, stated_frames = 0, None
    sound, seen_pixels = False, False
    for number, found in enumerate(_chunks(data)):
        if number >= MAX_BLOCKS:
            endless = ImageRefused("decode_error", f"The file has more than {MAX_BLOCKS:,} chunks.")
            return FirstPicture(data, "PNG", (width, height), None, refused=endless)
        kind = found.kind
        if kind == b"PLTE":
            palette = (found.end - found.start - 12) // 3
        sound = sound or (kind == b"IHDR" and found.is_sound(data))
        seen_pixels = seen_pixels or kind == b"IDAT"
        if kind in _KEPT:
            parts.append(data[found.start : found.end])
        elif kind == b"tRNS" and not seen_pixels and found.is_sound(data):
            if colour in (_GREY, _COLOURS):
                clear = _clear_samples(found.body(data), 1 if colour == _GREY else 3, bits)
            elif colour == _PALETTE and found.end - found.start - 12 <= palette:
                parts.append(data[found.start : found.end])
        elif kind == b"acTL" and not seen_pixels and found.is_sound(data):
            stated_frames = int.from_bytes(found.body(data)[:4], "big") or None
        elif kind in (b"fcTL", b"fdAT"):
            animation.append(found)
        elif (kind == b"eXIf" or _is_xmp(data, found)) and found.is_sound(data):
            parts.append(data[found.start : found.end])
    refused = cut() if sound and not seen_pixels else None
    picture = FirstPicture(b"".join(parts), "PNG", (width, height), clear=clear, bits=bits, refused=refused)
    if stated_frames is None:
        return picture
    return _of_animation(data, picture, animation, stated_frames)


def _of_animation(data: bytes, picture: FirstPicture, animation: list[_Chunk], stated: int) -> FirstPicture:
    controls = [found for found in animation if found.kind == b"fcTL"]
    hidden = not controls or controls[0].start > data.index(b"IDAT")  # what stands for old readers is not in it
    sound = len(controls) == stated and all(found.whole for found in animation)
    frames = stated + hidden if sound else None
    extracted = _first_frame(data, picture, animation) if hidden else None
    if extracted is None:
        return replace(picture, frames=frames)
    body, frame = extracted
    default = replace(picture, frames=frames)
    return replace(picture, data=body, frames=frames, canvas=picture.size, frame=frame, otherwise=default)


def _first_frame(
    data: bytes, picture: FirstPicture, animation: list[_Chunk]
) -> tuple[bytes, tuple[int, int, int, int]] | None:
    """Return the first frame of an animation as a file of its own, and its place; None if it is not whole."""
    if len(animation) < 2 or animation[0].kind != b"fcTL" or not animation[0].is_sound(data):
        return None
    _, width, height, left, upper = _FRAME_CONTROL.unpack_from(animation[0].body(data))
    pixels = []
    for found in animation[1:]:
        if found.kind != b"fdAT":
            break
        if not found.is_sound(data):
            return None
        pixels.append(chunk(b"IDAT", found.body(data)[4:]))
    canvas_width, canvas_height = picture.size or (0, 0)
    if not pixels or not width or not height or left + width > canvas_width or upper + height > canvas_height:
        return None
    header = chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29])
    kept = [picture.data[found.start : found.end] for found in _chunks(picture.data) if found.kind not in _KEPT]
    palette = [picture.data[found.start : found.end] for found in _chunks(picture.data) if found.kind == b"PLTE"]
    body = b"".join([SIGNATURE, header, *palette, *kept, *pixels, chunk(b"IEND", b"")])
    return body, (left, upper, left + width, upper + height)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 12 + length
        kind = data[at + 4 : at + 8]
        yield _Chunk(kind, at, min(end, len(data)), end <= len(data))
        if kind == b"IEND":
            return
        at = end


def _is_xmp(data: bytes, found: _Chunk) -> bool:
    """Return whether a chunk is what some programs state the orientation in."""
    return (
        found.kind == b"iTXt"
        and found.end - found.start <= _MAX_XMP_BYTES
        and data[found.start + 8 : found.start + 8 + len(_XMP)] == _XMP
    )


def _clear_samples(body: bytes, samples: int, bits: int) -> tuple[int, ...] | None:
    if len(body) < 2 * samples:
        return None
    return tuple(value & ((1 << bits) - 1) for value in struct.unpack_from(f">{samples}H", body))
