"""Pictures of every format, mode, depth and option, against a second decoder (libvips), or against what was written.

Each difference that is meant is named with its reason where the case is made.
"""

from __future__ import annotations

import functools
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import pyvips
from picture_files import bmp_with_alpha, encode, icon, pack_bits, png, png_chunk, tiff
from PIL import Image, ImageCms

from smp_features.images import decode_rgb, inspect_image

SIZES = ((37, 29), (8, 64))
"""Pixels across and down: odd ones, and one turned on its side."""


@dataclass(frozen=True)
class Case:
    """A file, and what must come out of it.

    Attributes:
        name: Of the case.
        data: The file.
        expected: Pixels, uint8 of shape (height, width, 3).
        tolerance: Shades that any pixel may be apart: 0, but for a reason.
        mean: Shades that pixels may be apart on average.
    """

    name: str
    data: bytes
    expected: np.ndarray
    tolerance: int = 0
    mean: float = 255.0


def scene(width: int, height: int) -> np.ndarray:
    """Slopes in three directions under coarse noise: every shade occurs, and no two corners are alike."""
    down, across = np.mgrid[0:height, 0:width]
    slopes = np.stack([across / width, down / height, (across + down) / (width + height)], 2) * 200
    noise = np.random.default_rng(width).integers(0, 56, (-(-height // 4), -(-width // 4), 3))
    return (slopes + noise.repeat(4, 0).repeat(4, 1)[:height, :width]).astype(np.uint8)


def alpha(width: int, height: int) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


def on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[..., None] / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def second_decoder(data: bytes) -> np.ndarray:
    """Return what libvips makes of a file, upright, on white, in 8 bits."""
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.interpretation in ("cmyk", "lab", "labs"):
        raise AssertionError("converted with other profiles; its cases state their own pixels")
    if image.hasalpha():
        top = 65535 if image.format == "ushort" else 255
        image = image.flatten(background=[top])
    if image.format == "ushort":
        image = (image / 257).rint().cast("uchar")
    pixels = image.cast("uchar").numpy()
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return pixels if pixels.shape[2] == 3 else pixels[..., :1].repeat(3, 2)


def compared(name: str, data: bytes, tolerance: int = 0, mean: float = 255.0) -> Case:
    return Case(name, data, second_decoder(data), tolerance, mean)


# -- PNG: written by hand, all colour types and depths ----------------------------------------------------------------

PNG_KINDS = [
    *((0, bits) for bits in (1, 2, 4, 8, 16)),
    *((2, bits) for bits in (8, 16)),
    *((3, bits) for bits in (1, 2, 4, 8)),
    *((colour, bits) for colour in (4, 6) for bits in (8, 16)),
]


def png_samples(colour: int, bits: int, width: int, height: int) -> tuple[np.ndarray, list[bytes]]:
    """Return samples as they are stored, and the chunks that stand before them."""
    colours, opacity = scene(width, height).astype(np.uint16), alpha(width, height).astype(np.uint16)
    if colour == 3:
        palette = scene(16, 16).reshape(-1, 3)[: 2**bits]
        return colours[..., 0] >> (8 - bits), [png_chunk(b"PLTE", palette.tobytes())]
    deep = colours * 257 - np.arange(width)[None, :, None] if bits == 16 else colours >> max(0, 8 - bits)
    deep, opacity = np.clip(deep, 0, 2**bits - 1), opacity * 257 if bits == 16 else opacity
    stored = {0: deep[..., 0], 2: deep, 4: np.dstack([deep[..., 0], opacity]), 6: np.dstack([deep, opacity])}[colour]
    return stored, []


def interlaced(samples: np.ndarray, colour: int, bits: int, *before: bytes) -> bytes:
    """A PNG in seven passes."""
    height, width = samples.shape[:2]
    rows = []
    for top, left, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        part = samples[top::down, left::across]
        if part.size:
            rows += [b"\0" + row for row in pack_bits(part, bits)]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 1)
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(rows)))
    chunks = [png_chunk(b"IHDR", header), *before, pixels, png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_cases(width: int, height: int) -> Iterator[Case]:
    for (colour, bits), write in itertools.product(PNG_KINDS, (png, interlaced)):
        samples, before = png_samples(colour, bits, width, height)
        name = f"colour {colour}, {bits} bits, {write.__name__}"
        # Pillow keeps the upper byte of a 16-bit colour where libvips rounds: one shade.
        deep = 1 if bits == 16 else 0
        # Mixing with white in integers: one shade either way.
        mixed = 1 if colour in (4, 6) else 0
        yield compared(name, write(samples, colour, bits, *before), deep + mixed)
        clear = {
            0: struct.pack(">H", int(samples[0, 0].max())),
            2: struct.pack(">3H", *np.resize(samples[0, 0], 3)),
            3: bytes(range(0, 2**bits * 8, 8))[: 2**bits] if bits < 8 else bytes(range(256)),
        }.get(colour)
        if clear is not None:
            transparent = write(samples, colour, bits, *before, png_chunk(b"tRNS", clear))
            yield compared(f"{name}, transparent", transparent, deep + (1 if colour == 3 else 0))
    samples, _ = png_samples(2, 8, width, height)
    for orientation in range(1, 9):
        tag = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        yield compared(f"orientation {orientation}", png(samples, 2, 8, png_chunk(b"eXIf", tag)))
    for gamma in (22_727, 45_455, 100_000):
        yield compared(f"gamma {gamma}", png(samples, 2, 8, png_chunk(b"gAMA", struct.pack(">I", gamma))))


# -- JPEG -------------------------------------------------------------------------------------------------------------


def jpeg_cases(width: int, height: int) -> Iterator[Case]:
    # Two builds of libjpeg round the inverse transform and the colours alike to within a few shades.
    near = {"tolerance": 4, "mean": 0.5}
    picture = Image.fromarray(scene(width, height))
    for quality, subsampling, progressive in itertools.product((50, 95), (0, 1, 2), (False, True)):
        options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        yield compared(f"RGB {options}", encode(picture, "JPEG", **options), **near)
    for quality, progressive in itertools.product((50, 95), (False, True)):
        options = {"quality": quality, "progressive": progressive}
        yield compared(f"L {options}", encode(picture.convert("L"), "JPEG", **options), **near)
    for options in ({"restart_marker_rows": 1}, {"keep_rgb": True}, {"optimize": True}, {"icc_profile": SRGB}):
        yield compared(f"RGB {list(options)}", encode(picture, "JPEG", quality=90, subsampling=0, **options), **near)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield compared(f"orientation {orientation}", encode(picture, "JPEG", quality=90, exif=exif), **near)
    # libvips converts CMYK by a printing profile, browsers multiply: here, its samples and their arithmetic.
    for quality in (50, 95):
        data = encode(Image.fromarray(255 - np.dstack([scene(width, height), alpha(width, height)]), "CMYK"), "JPEG")
        inks = 255 - pyvips.Image.new_from_buffer(data, "").numpy().astype(np.int64)
        expected = np.rint(inks[..., :3] * inks[..., 3:] / 255).astype(np.uint8)
        yield Case(f"CMYK {quality}", data, expected, **near)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

# -- GIF, WebP, AVIF ---------------------------------------------------------------------------------------------------


def gif_cases(width: int, height: int) -> Iterator[Case]:
    picture = Image.fromarray(scene(width, height))
    for colours, interlace, clear in itertools.product((2, 4, 17, 256), (0, 1), (None, 1)):
        options = {"interlace": interlace} | ({} if clear is None else {"transparency": clear})
        yield compared(f"{colours} {options}", encode(picture.quantize(colours), "GIF", **options))
    frames = [picture.quantize(16), picture.rotate(180).quantize(16)]
    for disposal in (0, 1, 2, 3):
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=disposal)
        yield compared(f"two frames, disposal {disposal}", data)
    for left, upper in ((0, 0), (3, 2), (width - 5, height - 4)):
        small = encode(picture.crop((0, 0, 5, 4)).quantize(8), "GIF", interlace=0)
        data = bytearray(small)
        data[6:10] = struct.pack("<HH", width, height)
        at = data.index(b",", 13 + 3 * 8)
        data[at + 1 : at + 5] = struct.pack("<HH", left, upper)
        # libvips paints what no frame covers in black where no colour is transparent; browsers leave it transparent.
        expected = np.full((height, width, 3), 255, np.uint8)
        expected[upper : upper + 4, left : left + 5] = second_decoder(small)
        yield Case(f"a frame at {left}, {upper}", bytes(data), expected)
        at = data.index(b",", 13 + 3 * 8)
        control = b"\x21\xf9\x04\x01\0\0\x07\0"
        yield compared(f"a frame at {left}, {upper} with a clear colour", bytes(data[:at] + control + data[at:]))


def webp_cases(width: int, height: int) -> Iterator[Case]:
    rgb, opacity = Image.fromarray(scene(width, height)), Image.fromarray(alpha(width, height))
    rgba = rgb.copy()
    rgba.putalpha(opacity)
    for (mode, picture), lossless, animated in itertools.product(
        (("RGB", rgb), ("RGBA", rgba)), (False, True), (False, True)
    ):
        options = {"lossless": lossless, "exact": True, "quality": 90}
        if animated:
            options |= {"save_all": True, "append_images": [picture.rotate(180)]}
        # Both use libwebp, but only Pillow's way goes through its animation decoder, which upsamples colours alike.
        near = 1 if mode == "RGBA" else 0
        yield compared(f"{mode} lossless {lossless} animated {animated}", encode(picture, "WEBP", **options), near)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield compared(f"orientation {orientation}", encode(rgb, "WEBP", lossless=True, exif=exif.tobytes()))


def avif_cases(width: int, height: int) -> Iterator[Case]:
    rgb = Image.fromarray(scene(width, height))
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(alpha(width, height)))
    for mode, picture in (("RGB", rgb), ("RGBA", rgba), ("L", rgb.convert("L"))):
        # Two decoders of AV1 agree to the bit; turning colours into RGB they round and upsample apart.
        yield compared(mode, encode(picture, "AVIF", quality=80, subsampling="4:4:4", speed=10), 4, 1.0)


# -- TIFF -------------------------------------------------------------------------------------------------------------


def tiff_cases(width: int, height: int) -> Iterator[Case]:
    colours, opacity = scene(width, height), alpha(width, height)
    rgb = Image.fromarray(colours)
    rgba = Image.fromarray(np.dstack([colours, opacity]))
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    modes = {
        "1": rgb.convert("1"),
        "L": rgb.convert("L"),
        "P": rgb.quantize(200),
        "LA": rgba.convert("LA"),
        "RGB": rgb,
        "RGBA": rgba,
        "I;16": deep,
    }
    compressions = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
    for (mode, picture), compression in itertools.product(modes.items(), compressions):
        # Mixing with white in integers: one shade either way.
        near = 1 if mode in ("LA", "RGBA") else 0
        data = encode(picture, "TIFF", compression=compression)
        yield compared(f"{mode} {compression}", data, near)
        more = encode(picture, "TIFF", compression=compression, save_all=True, append_images=[rgb.resize((5, 9))])
        yield compared(f"{mode} {compression}, two pages", more, near)
    for compression in ("group3", "group4"):
        yield compared(compression, encode(modes["1"], "TIFF", compression=compression))
    for mode in ("L", "RGB"):
        # JPEG within TIFF: two builds of libjpeg, as above.
        yield compared(f"{mode} jpeg", encode(modes[mode], "TIFF", compression="jpeg", quality=95), 4, 0.5)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield compared(f"orientation {orientation}", encode(rgb, "TIFF", exif=exif))
    for order, white_is_zero in itertools.product("<>", (False, True)):
        photometric = 0 if white_is_zero else 1
        sides = "from white" if white_is_zero else "from black"
        for (bits, dtype), deflated in itertools.product(((8, "u1"), (16, f"{order}u2")), (False, True)):
            stored = (colours[..., 1].astype(np.uint16) * (257 if bits == 16 else 1)).astype(dtype).tobytes()
            stored = zlib.compress(stored) if deflated else stored
            layout = {"order": order, "compression": 8 if deflated else 1}
            yield compared(
                f"{order} {bits} bits {sides}, {layout}", tiff(stored, width, height, (bits,), photometric, **layout)
            )
        # libvips hands floats and signed samples on as numbers, without a white: here, what was written.
        expected = colours[..., 1:2].repeat(3, 2)
        shares = colours[..., 1] / 255
        shares = 1 - shares if white_is_zero else shares
        data = tiff(shares.astype(f"{order}f4").tobytes(), width, height, (32,), photometric, kind=3, order=order)
        yield Case(f"{order} float {sides}", data, expected)
        signed = np.rint(shares * 32767).astype(f"{order}i2")
        data = tiff(signed.tobytes(), width, height, (16,), photometric, kind=2, order=order)
        yield Case(f"{order} signed {sides}", data, expected)
    # libvips converts CMYK by a printing profile, browsers multiply.
    inks = 255 - np.dstack([colours, opacity]).astype(np.int64)
    multiplied = np.rint((255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255).astype(np.uint8)
    yield Case("CMYK", encode(Image.fromarray(inks.astype(np.uint8), "CMYK"), "TIFF"), multiplied, 1)


# -- files that Pillow cannot write: by libvips ------------------------------------------------------------------------


def vips(pixels: np.ndarray, interpretation: str = "srgb") -> pyvips.Image:
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=interpretation)


def foreign_cases(width: int, height: int) -> Iterator[Case]:
    colours, opacity = scene(width, height), alpha(width, height)
    deep = colours.astype(np.uint16) * 257
    pictures = {
        "grey": vips(colours[..., :1], "b-w"),
        "RGB": vips(colours),
        "RGBA": vips(np.dstack([colours, opacity])),
        "deep grey": vips(deep[..., :1], "grey16"),
        "deep RGB": vips(deep, "rgb16"),
        "deep RGBA": vips(np.dstack([deep, opacity.astype(np.uint16) * 257]), "rgb16"),
    }
    layouts: dict[str, dict[str, object]] = {
        "tiles": {"tile": True, "tile_width": 16, "tile_height": 32},
        "BigTIFF": {"bigtiff": True},
        "differences": {"compression": "lzw", "predictor": "horizontal"},
        "pages of less detail": {"tile": True, "tile_width": 16, "tile_height": 16, "pyramid": True},
        "tiles, deflated, in a BigTIFF": {"tile": True, "bigtiff": True, "compression": "deflate"},
    }
    for (name, picture), (layout, options) in itertools.product(pictures.items(), layouts.items()):
        # Pillow keeps the upper byte of 16-bit colours, libvips rounds; both mix with white in integers.
        near = (1 if name.startswith("deep") else 0) + (1 if name.endswith("A") else 0)
        yield compared(f"TIFF {name}, {layout}", picture.tiffsave_buffer(**options), near)
    for bits, white_is_zero in itertools.product((1, 2, 4), (False, True)):
        data = pictures["grey"].tiffsave_buffer(bitdepth=bits, miniswhite=white_is_zero and bits == 1)
        yield compared(f"TIFF {bits} bits, from white {white_is_zero}", data)
    yield compared("TIFF premultiplied", pictures["RGBA"].tiffsave_buffer(premultiply=True), 2)  # rounded twice
    for quality in (60, 95):
        data = pictures["RGB"].tiffsave_buffer(compression="jpeg", Q=quality, tile=True, tile_width=16, tile_height=16)
        yield compared(f"TIFF of JPEG tiles, {quality}", data, 4, 0.5)  # two builds of libjpeg
    for bits, interlace in itertools.product((1, 2, 4, 8), (False, True)):
        data = pictures["RGBA"].pngsave_buffer(palette=True, bitdepth=bits, interlace=interlace)
        yield compared(f"PNG palette of {bits} bits, interlaced {interlace}", data, 1)  # mixing in integers
    for optimised, interlace in itertools.product((False, True), (False, True)):
        options = {"optimize_scans": optimised, "interlace": interlace, "subsample_mode": "off", "Q": 90}
        yield compared(f"JPEG {options}", pictures["RGB"].jpegsave_buffer(**options), 4, 0.5)  # two builds of libjpeg


# -- formats that libvips, as packaged, does not read: against what was written ---------------------------------------


def written_cases(width: int, height: int) -> Iterator[Case]:
    colours, opacity = scene(width, height), alpha(width, height)
    grey = colours[..., 0]
    rgb, rgba = Image.fromarray(colours), Image.fromarray(np.dstack([colours, opacity]))
    three = grey[..., None].repeat(3, 2)
    for mode in ("1", "L", "P", "RGB"):
        picture = rgb.quantize(100) if mode == "P" else rgb.convert(mode)
        yield Case(f"BMP {mode}", encode(picture, "BMP"), np.asarray(picture.convert("RGB")))
    yield Case("BMP RGBA", encode(rgba, "BMP"), colours)  # in this header the fourth byte is padding
    yield Case("BMP with alpha", bmp_with_alpha(np.asarray(rgba)), on_white(colours, opacity), 1)  # mixing in integers
    for bitmap in ("png", "bmp"):
        data = encode(rgba, "ICO", sizes=[(width, height)], bitmap_format=bitmap)
        yield Case(f"ICO {bitmap}", data, on_white(colours, opacity), 1)  # mixing in integers
    yield Case("ICO of a PNG", icon(encode(rgb, "PNG"), width, height), colours)
    for top in (1, 7, 100, 255, 1000, 65535):
        for kind, values in ((b"P5", grey), (b"P6", colours), (b"P2", grey), (b"P3", colours)):
            stored = np.rint(values / 255 * top).astype(np.int64)
            header = kind + b" %d %d %d\n" % (width, height, top)
            if kind in (b"P2", b"P3"):
                data = header + b" ".join(b"%d" % value for value in stored.reshape(-1)) + b"\n"
            else:
                data = header + stored.astype(">u2" if top > 255 else "u1").tobytes()
            expected = np.rint(stored * 255 / top).astype(np.uint8)
            expected = expected if expected.ndim == 3 else expected[..., None].repeat(3, 2)
            # Pillow's text decoder goes by way of 16 bits and rounds twice.
            yield Case(f"{kind.decode()} of {top}", data, expected, 1 if kind in (b"P2", b"P3") else 0)
    yield Case("JPEG 2000 L", encode(Image.fromarray(grey), "JPEG2000"), three)
    yield Case("JPEG 2000 RGB", encode(rgb, "JPEG2000"), colours)
    yield Case("JPEG 2000 RGBA", encode(rgba, "JPEG2000"), on_white(colours, opacity), 1)  # mixing in integers


GROUPS: dict[str, Callable[[int, int], Iterator[Case]]] = {
    "PNG": png_cases,
    "JPEG": jpeg_cases,
    "GIF": gif_cases,
    "WebP": webp_cases,
    "AVIF": avif_cases,
    "TIFF": tiff_cases,
    "foreign": foreign_cases,
    "others": written_cases,
}


@functools.cache
def cases(group: str) -> list[Case]:
    return [case for size in SIZES for case in GROUPS[group](*size)]


@pytest.mark.parametrize("group", GROUPS)
def test_pixels_are_those_of_a_second_decoder(group: str) -> None:
    apart = {}
    for case in cases(group):
        facts = inspect_image(case.data)
        if facts.status != "ok":
            apart[case.name] = f"{facts.status}: {facts.error}"
            continue
        pixels = np.asarray(decode_rgb(case.data)).astype(np.int64)
        if pixels.shape != case.expected.shape:
            apart[case.name] = f"{pixels.shape}, expected {case.expected.shape}"
            continue
        difference = np.abs(pixels - case.expected)
        if difference.max() > case.tolerance or difference.mean() > case.mean:
            apart[case.name] = f"up to {difference.max()} shades apart, {difference.mean():.2f} on average"
    assert apart == {}


def test_the_grid_has_at_least_three_hundred_files_that_both_decoders_read() -> None:
    assert sum(len(cases(group)) for group in GROUPS if group != "others") >= 300
