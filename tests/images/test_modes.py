"""Pixels of every mode and depth are those that the file means: transparent is white, white what the format says."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from picture_files import bmp_with_alpha, encode, icon, png, png_chunk, tiff
from PIL import Image

from smp_features.images import decode_rgb, inspect_image

HEIGHT, WIDTH = 8, 12
LEFT, RIGHT = (2, 2), (2, -2)  # row, column
COLOURS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
COLOURS[:, : WIDTH // 2], COLOURS[:, WIDTH // 2 :] = (200, 60, 40), (30, 80, 190)
GREY = np.full((HEIGHT, WIDTH), 192, np.uint8)
GREY[:, : WIDTH // 2] = 64


def shown(data: bytes) -> np.ndarray:
    assert inspect_image(data).status == "ok"
    return np.asarray(decode_rgb(data))


def halves(data: bytes) -> tuple[list[int], list[int]]:
    pixels = shown(data)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    return pixels[LEFT].tolist(), pixels[RIGHT].tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_shade_of_a_grey_png_is_white_at_every_depth(bits: int) -> None:
    samples = (GREY.astype(np.uint16) * 257) >> (16 - bits)
    clear, other = int(samples[LEFT]), int(samples[RIGHT])
    right = round(other * 255 / (2**bits - 1))
    data = png(samples, 0, bits, png_chunk(b"tRNS", struct.pack(">H", clear)))
    assert halves(data) == ([255] * 3, [right] * 3)


def test_of_sixteen_bit_shades_only_the_very_one_is_transparent() -> None:
    samples = np.full((HEIGHT, WIDTH), 0x4041, np.uint16)
    samples[:, : WIDTH // 2] = 0x4040
    assert halves(png(samples, 0, 16, png_chunk(b"tRNS", b"\x40\x40"))) == ([255] * 3, [64] * 3)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_white_and_its_neighbour_is_not(bits: int) -> None:
    samples = np.full((HEIGHT, WIDTH, 3), (0x4040, 0x5050, 0x6061), np.uint16)
    samples[:, : WIDTH // 2, 2] = 0x6060
    if bits == 8:
        samples = samples >> 8
        samples[:, WIDTH // 2 :, 2] = 0x61
    clear = samples[LEFT]
    left, right = halves(png(samples, 2, bits, png_chunk(b"tRNS", struct.pack(">3H", *clear))))
    assert left == [255] * 3
    assert right == [0x40, 0x50, 0x61 if bits == 8 else 0x60]


def test_transparency_that_is_stated_wrongly_is_no_transparency() -> None:
    grey = png(GREY, 0, 8)
    for transparency in (
        png_chunk(b"tRNS", b"\0\x40")[:-1] + b"\0",  # checksum
        png_chunk(b"tRNS", b"\x40"),  # too short
    ):
        assert halves(grey[:33] + transparency + grey[33:]) == ([64] * 3, [192] * 3)


@pytest.mark.parametrize("colour", [4, 6])
@pytest.mark.parametrize("bits", [8, 16])
def test_an_alpha_channel_of_any_depth_is_composited_on_white(colour: int, bits: int) -> None:
    top = 2**bits - 1
    base = GREY[..., None] if colour == 4 else COLOURS
    alpha = np.where(np.arange(WIDTH) < WIDTH // 2, 0, top)[None, :, None].repeat(HEIGHT, 0)
    samples = np.concatenate([base.astype(np.uint16) * (257 if bits == 16 else 1), alpha.astype(np.uint16)], 2)
    right = [192] * 3 if colour == 4 else [30, 80, 190]
    assert halves(png(samples, colour, bits)) == ([255] * 3, right)


DEEP = {
    "unsigned 8": (GREY, "u1", (8,), 1),
    "unsigned 16": (GREY.astype(np.uint32) * 257, "u2", (16,), 1),
    "signed 16": (GREY.astype(np.int32) * 257 // 2, "i2", (16,), 2),
    "float 32": (GREY / 255, "f4", (32,), 3),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("kind", DEEP)
def test_a_grey_tiff_means_the_same_shades_from_either_end(kind: str, white_is_zero: bool, order: str) -> None:
    samples, dtype, bits, sample_format = DEEP[kind]
    if white_is_zero:
        samples = {"unsigned 8": 255, "unsigned 16": 65535, "signed 16": 32767, "float 32": 1}[kind] - samples
    raw = samples.astype(order + dtype).tobytes()
    data = tiff(raw, WIDTH, HEIGHT, bits, 0 if white_is_zero else 1, kind=sample_format, order=order)
    assert halves(data) == ([64] * 3, [192] * 3)


def test_a_grey_tiff_of_twelve_bits_is_scaled_by_twelve() -> None:
    samples = GREY.astype(np.uint32).reshape(-1, 2) * 4095 // 255
    first, second = samples[:, 0], samples[:, 1]
    raw = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
    assert halves(tiff(raw, WIDTH, HEIGHT, (12,), 1)) == ([64] * 3, [192] * 3)


def test_a_grey_tiff_of_unsigned_32_bits_keeps_its_order_beyond_the_signed_range() -> None:
    samples = np.linspace(0, 2**32 - 1, WIDTH * HEIGHT).astype("<u4").reshape(HEIGHT, WIDTH)
    pixels = shown(tiff(samples.tobytes(), WIDTH, HEIGHT, (32,), 1))[..., 0].reshape(-1).astype(int)
    assert (pixels[0], pixels[-1]) == (0, 255)
    assert (np.diff(pixels) >= 0).all()


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_with_alpha_in_a_tiff_is_composited_on_white(white_is_zero: bool) -> None:
    alpha = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255)[None].repeat(HEIGHT, 0)
    samples = np.stack([255 - GREY if white_is_zero else GREY, alpha], 2).astype(np.uint8)
    data = tiff(samples.tobytes(), WIDTH, HEIGHT, (8, 8), 0 if white_is_zero else 1)
    assert halves(data) == ([255] * 3, [192] * 3)


@pytest.mark.parametrize("top", [15, 200, 255, 1023, 65535])
@pytest.mark.parametrize("colours", [False, True])
def test_what_is_white_in_a_ppm_stands_in_its_header(top: int, colours: bool) -> None:
    values = np.array([top // 4, top // 2], np.int64).repeat(WIDTH // 2)[None].repeat(HEIGHT, 0)
    if colours:
        values = values[..., None].repeat(3, 2)
    kind, sample = b"P6" if colours else b"P5", ">u2" if top > 255 else "u1"
    data = kind + b" # of %d\n%d %d\n%d\n" % (top, WIDTH, HEIGHT, top) + values.astype(sample).tobytes()
    left, right = halves(data)
    assert left == [round(top // 4 * 255 / top)] * 3
    assert right == [round(top // 2 * 255 / top)] * 3


def test_a_dark_pgm_of_sixteen_bits_stays_dark() -> None:
    data = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + GREY.astype(">u2").tobytes()  # 64 and 192 of 65,535
    assert halves(data) == ([0] * 3, [1] * 3)
    plain = b"P2 %d %d 65535\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % value for value in GREY.reshape(-1))
    assert halves(plain) == ([0] * 3, [1] * 3)


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "1"])
def test_other_colour_spaces_become_the_rgb_they_mean(image_format: str, mode: str) -> None:
    picture = Image.fromarray(COLOURS).convert(mode)
    if (image_format, mode) == ("JPEG", "1"):
        picture = picture.convert("L")
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    pixels = shown(encode(picture, image_format, **options)).astype(int)
    assert np.abs(pixels - np.asarray(picture.convert("RGB"))).max() < 6


def test_a_gif_frame_smaller_than_its_canvas_stands_on_white() -> None:
    half = Image.fromarray(COLOURS[:, : WIDTH // 2]).quantize(4)
    data = bytearray(encode(half, "GIF"))
    data[6:8] = struct.pack("<H", WIDTH)  # the canvas, of which the only frame covers the left
    assert halves(bytes(data)) == ([200, 60, 40], [255] * 3)


def test_a_webp_frame_smaller_than_its_canvas_stands_on_white() -> None:
    frames = [Image.fromarray(COLOURS[:, : WIDTH // 2]), Image.fromarray(255 - COLOURS[:, : WIDTH // 2])]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    data[24:27] = (WIDTH - 1).to_bytes(3, "little")
    assert halves(bytes(data)) == ([200, 60, 40], [255] * 3)


def test_an_animated_png_whose_default_picture_is_not_in_it_shows_its_first_frame() -> None:
    hidden = Image.new("RGB", (WIDTH, HEIGHT), "black")
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    data = encode(hidden, "PNG", save_all=True, append_images=frames, default_image=True)
    assert halves(data) == ([200, 60, 40], [30, 80, 190])
    assert inspect_image(data).frames == Image.open(io.BytesIO(data)).n_frames
    damaged = bytearray(data)
    damaged[data.index(b"fdAT") + 12] ^= 1
    assert halves(bytes(damaged)) == ([0] * 3, [0] * 3)  # what readers without animation show


def test_a_palette_with_alpha_is_composited_on_white() -> None:
    indices = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 1)[None].repeat(HEIGHT, 0)
    palette = png_chunk(b"PLTE", bytes([200, 60, 40, 30, 80, 190]))
    assert halves(png(indices, 3, 8, palette, png_chunk(b"tRNS", b"\x80")))[0] == [227, 157, 147]
    too_long = png_chunk(b"tRNS", b"\0\xff\xff")  # of more colours than there are: ignored
    assert halves(png(indices, 3, 8, palette, too_long)) == ([200, 60, 40], [30, 80, 190])


def test_an_icons_transparency_is_that_of_its_picture() -> None:
    inside = png(GREY, 0, 8, png_chunk(b"tRNS", b"\0\x40"))
    assert halves(icon(inside, WIDTH, HEIGHT)) == ([255] * 3, [192] * 3)


@pytest.mark.parametrize("image_format", ["BMP", "ICO"])
def test_an_alpha_channel_that_was_never_written_hides_nothing(image_format: str) -> None:
    rgba = np.dstack([COLOURS, np.zeros((HEIGHT, WIDTH), np.uint8)])
    if image_format == "BMP":
        data = bmp_with_alpha(rgba)
    else:
        bgra = np.ascontiguousarray(rgba[::-1, :, [2, 1, 0, 3]]).tobytes()
        info = struct.pack("<IiiHHIIiiII", 40, WIDTH, 2 * HEIGHT, 1, 32, 0, len(bgra), 0, 0, 0, 0)
        body = info + bgra + bytes(4 * HEIGHT)
        data = struct.pack("<HHHBBBBHHII", 0, 1, 1, WIDTH, HEIGHT, 0, 0, 1, 32, len(body), 22) + body
    assert halves(data) == ([200, 60, 40], [30, 80, 190])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_orientation_is_applied_in_every_format_that_states_it(image_format: str) -> None:
    upright = Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    data = encode(stored, image_format, exif=exif if image_format == "TIFF" else exif.tobytes(), quality=95)
    pixels = shown(data).astype(int)
    assert pixels.shape == (64, 96, 3)
    assert np.abs(pixels[32, 20] - (200, 60, 40)).max() < 8
    assert np.abs(pixels[32, 76] - (30, 80, 190)).max() < 8
