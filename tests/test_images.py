"""Every image case that broke an extraction somewhere decodes to the expected pixels or to its typed refusal."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from smp_features.images import ImageRefused, decode_rgb, inspect_image
from smp_features.refusals import InputRefused


def encode(picture: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises `width` x `height` pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_ordinary_picture_is_reported_with_size_format_and_frames() -> None:
    facts = inspect_image(encode(noise(40, 30), "JPEG"))
    assert (facts.width, facts.height, facts.format, facts.frames) == (40, 30, "JPEG", 1)
    assert (facts.status, facts.error) == ("ok", None)


def test_pixels_of_a_lossless_picture_come_through_unchanged() -> None:
    picture = noise()
    decoded = decode_rgb(encode(picture, "PNG"))
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(picture))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest resets our own filter
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "empty"),
        (b"<html><body>404 Not Found</body></html>", "not_an_image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (b"\x00" * 4096, "not_an_image"),
        (png_header(20_000, 6_000), "too_many_pixels"),
        (png_header(50_000, 50_000), "too_many_pixels"),
        (png_header(1, 20_000), "bad_aspect_ratio"),
        (png_header(20_000, 1), "bad_aspect_ratio"),
    ],
    ids=["empty", "html", "svg", "eps", "zeros", "120MP", "2500MP", "strip", "ribbon"],
)
def test_what_is_no_usable_picture_gets_its_status(data: bytes, status: str) -> None:
    facts = inspect_image(data)
    assert facts.status == status
    assert facts.error
    with pytest.raises(ImageRefused) as refused:
        decode_rgb(data)
    assert refused.value.status == status
    assert isinstance(refused.value, InputRefused)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_cut_file_is_truncated_or_undecodable_and_never_a_picture(image_format: str) -> None:
    whole = encode(noise(64, 64), image_format)
    for share in (0.4, 0.7, 0.9):
        facts = inspect_image(whole[: int(len(whole) * share)])
        assert facts.status in {"truncated", "not_an_image", "decode_error"}, (image_format, share)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP"])
def test_a_cut_file_with_a_whole_header_is_truncated_and_keeps_its_facts(image_format: str) -> None:
    whole = encode(noise(64, 48), image_format)
    facts = inspect_image(whole[: len(whole) * 2 // 3])
    assert (facts.status, facts.width, facts.height, facts.format) == ("truncated", 64, 48, image_format)


def test_damaged_pixel_data_is_a_decode_error_that_quotes_nothing() -> None:
    whole = bytearray(encode(noise(64, 64), "PNG"))
    middle = len(whole) // 2
    whole[middle : middle + 16] = b"secret-content!!"
    facts = inspect_image(bytes(whole))
    assert facts.status in {"decode_error", "truncated"}
    assert "secret" not in (facts.error or "")


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    decoded = np.asarray(decode_rgb(encode(Image.fromarray(ramp), "PNG")))
    expected = np.rint(ramp / 257.0).astype(np.uint8)
    assert np.array_equal(decoded[..., 0], expected)
    assert np.array_equal(decoded[..., 1], expected)


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiff_keeps_its_shades_whatever_its_range(top: float) -> None:
    ramp = (np.linspace(0, 1, 256, dtype=np.float32) * top).reshape(16, 16).astype(np.float32)
    decoded = np.asarray(decode_rgb(encode(Image.fromarray(ramp), "TIFF")))
    assert np.abs(decoded[..., 0].astype(float) - ramp / top * 255).max() <= 0.5 + 1e-3


def test_float_tiff_with_negative_values_and_nan_spans_its_own_range() -> None:
    values = np.array([[-3.0, 0.0], [np.nan, 3.0]], dtype=np.float32)
    decoded = np.asarray(decode_rgb(encode(Image.fromarray(values), "TIFF")))[..., 0]
    assert decoded[0, 0] == 0 and decoded[1, 1] == 255
    assert decoded[0, 1] == decoded[1, 0] == 128


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    clear = Image.new(mode, (4, 4), 0)
    assert np.asarray(decode_rgb(encode(clear, "PNG"))).min() == 255


def test_half_transparency_mixes_with_white() -> None:
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.asarray(decode_rgb(encode(half, "PNG")))[0, 0].tolist() == [127, 127, 127]


def test_a_transparent_palette_colour_is_white() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((0, 0), 0)
    decoded = decode_rgb(encode(palette, "PNG", transparency=1))
    assert decoded.getpixel((0, 0)) == (10, 20, 30)
    assert decoded.getpixel((1, 1)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame_and_counts_the_rest() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_rgb(data).getpixel((0, 0)) == (255, 0, 0)
    assert inspect_image(data).frames == 3


def test_cmyk_becomes_the_rgb_it_means() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = decode_rgb(encode(cyan, "JPEG", quality=95)).getpixel((8, 8))
    assert red < 10 and green > 245 and blue > 245


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_itself_would(orientation: int) -> None:
    from PIL import ImageOps

    picture = noise(40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, "PNG", exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decode_rgb(data)), np.asarray(expected))
    facts = inspect_image(data)
    assert (facts.width, facts.height) == expected.size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Tag data larger")  # pytest resets our own filter
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\xff\xff\x00\x00\x00\x00",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
    ],
)
def test_a_broken_exif_tag_costs_the_orientation_but_not_the_picture(exif: bytes) -> None:
    facts = inspect_image(encode(noise(40, 30), "JPEG", exif=exif))
    assert (facts.status, facts.width, facts.height) == ("ok", 40, 30)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    data = encode(noise(64, 64), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpack)
    assert inspect_image(data, max_pixels=1000).status == "too_many_pixels"


def test_decoding_prints_no_warning_and_survives_warnings_as_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inspect_image(png_header(20_000, 6_000)).status == "too_many_pixels"


def test_running_out_of_memory_is_not_blamed_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(self: Image.Image) -> None:
        raise MemoryError

    data = encode(noise(8, 8), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhaust)
    with pytest.raises(MemoryError):
        inspect_image(data)
