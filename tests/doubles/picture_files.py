"""Picture files written by hand, byte by byte, for what no encoder writes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pack_bits(values: np.ndarray, bits: int) -> list[bytes]:
    """Rows of samples (height, width, …) as big-endian bytes, several samples to a byte where they are small."""
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in values]
    if bits == 8:
        return [row.astype(np.uint8).tobytes() for row in values]
    rows = []
    for row in values.reshape(len(values), -1):
        spread = (row[:, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1)) & 1
        rows.append(np.packbits(spread.reshape(-1)).tobytes())
    return rows


def png(values: np.ndarray, colour: int, bits: int, *before_pixels: bytes, behind: bytes = b"") -> bytes:
    """A PNG of samples (height, width) or (height, width, channels), with chunks before its pixels and behind."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in pack_bits(values, bits)))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *before_pixels,
            png_chunk(b"IDAT", pixels),
            behind,
            png_chunk(b"IEND", b""),
        ]
    )


def tiff(
    data: bytes,
    width: int,
    height: int,
    bits: tuple[int, ...],
    photometric: int,
    *,
    kind: int = 1,
    order: str = "<",
    compression: int = 1,
) -> bytes:
    """A TIFF of one strip; `kind` is the sample format (1 unsigned, 2 signed, 3 floating), compression 1 is none."""
    extra = len(bits) - (3 if photometric == 2 else 1)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, len(bits), bits[0]),
        (259, 3, 1, compression),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, len(bits)),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
        *([(338, 3, 1, 2)] if extra else []),
        (339, 3, 1, kind),
    ]
    body = data + b"\0" * (len(data) % 2)
    depths = b"".join(struct.pack(f"{order}H", depth) for depth in bits)
    at = 8 + len(body)
    packed = struct.pack(f"{order}H", len(entries))
    behind = at + 2 + 12 * len(entries) + 4
    for tag, size, count, value in entries:
        if tag == 258 and count == 2:
            stated = depths
        elif tag == 258 and count > 2:
            stated = struct.pack(f"{order}I", behind)
        else:
            stated = struct.pack(f"{order}HH", value, 0) if size == 3 else struct.pack(f"{order}I", value)
        packed += struct.pack(f"{order}HHI", tag, size, count) + stated
    signature = b"II*\0" if order == "<" else b"MM\0*"
    return signature + struct.pack(f"{order}I", at) + body + packed + b"\0" * 4 + depths


def pages(tiff_file: bytes) -> list[int]:
    """Where the directories of a little-endian TIFF begin."""
    found, at = [], int.from_bytes(tiff_file[4:8], "little")
    while at:
        found.append(at)
        link = at + 2 + 12 * int.from_bytes(tiff_file[at : at + 2], "little")
        at = int.from_bytes(tiff_file[link : link + 4], "little")
    return found


def scan_bomb(side: int, repeats: int) -> bytes:
    """A progressive grey JPEG with one of its scans repeated: small, and a pass over all pixels for each."""
    data = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]

    def end_of_scan(at: int) -> int:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        while data[at] != 0xFF or data[at + 1] in (0, *range(0xD0, 0xD8)):
            at += 1
        return at

    first, second = end_of_scan(scans[0]), end_of_scan(scans[1])
    return data[:second] + data[first:second] * repeats + data[second:]


def icon(png_file: bytes, width: int = 0, height: int = 0) -> bytes:
    """An icon of one PNG, with the size its directory promises (0 means 256)."""
    entry = struct.pack("<BBBBHHII", width, height, 0, 0, 1, 32, len(png_file), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + png_file


def bmp_with_alpha(rgba: np.ndarray) -> bytes:
    """A bitmap whose header says that its fourth byte is alpha."""
    height, width = rgba.shape[:2]
    pixels = np.ascontiguousarray(rgba[::-1, :, [2, 1, 0, 3]]).tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(pixels), 0, 0, 14 + len(info)) + info + pixels
