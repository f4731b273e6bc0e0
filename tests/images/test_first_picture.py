"""What stands around the first picture costs neither its pixels nor its status: metadata, later frames and pages."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from picture_files import encode, icon, pages, png_chunk
from PIL import Image

from smp_features.images import ImageFacts, decode_rgb, inspect_image, jpeg

RNG = np.random.default_rng(5)
FRAMES = [Image.fromarray(RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((48, 32), 0) for _ in range(4)]
PNG = encode(FRAMES[0], "PNG")
BEHIND_HEADER = 33


def several(image_format: str, **options: object) -> bytes:
    return encode(FRAMES[0], image_format, save_all=True, append_images=FRAMES[1:], **options)


def seen(data: bytes) -> tuple[ImageFacts, np.ndarray]:
    facts = inspect_image(data)
    assert (facts.status, facts.width, facts.height) == ("ok", 48, 32), facts
    return facts, np.asarray(decode_rgb(data))


BIG = b"x" * (2 << 20)
METADATA = {
    "compressed text of 2 MiB": png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(BIG)),
    "international text of 2 MiB": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
    "plain text of 2 MiB": png_chunk(b"tEXt", b"a\0" + BIG),
    "70 texts of 1 MiB": png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"y" * (1 << 20))) * 70,
    "a colour profile of 2 MiB": png_chunk(b"iCCP", b"p\0\0" + zlib.compress(BIG)),
    "a colour profile that is none": png_chunk(b"iCCP", b"p\0\0not zlib"),
    "text with a wrong checksum": png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    "text of an unknown compression": png_chunk(b"zTXt", b"a\0\7b"),
    "a short gamma": png_chunk(b"gAMA", b"\0"),
    "a short colour space": png_chunk(b"cHRM", b"\0"),
    "a short resolution": png_chunk(b"pHYs", b"\0"),
    "orientation with a wrong checksum": png_chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0")[:-1]
    + b"!",
    "a chunk nobody knows": png_chunk(b"prVt", b"?"),
}


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_of_a_png_decides_nothing(metadata: str, place: str) -> None:
    at = BEHIND_HEADER if place == "before" else len(PNG) - 12
    _, pixels = seen(PNG[:at] + METADATA[metadata] + PNG[at:])
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))


def test_metadata_of_a_png_within_an_icon_decides_nothing() -> None:
    text = METADATA["compressed text of 2 MiB"]
    _, pixels = seen(icon(PNG[:BEHIND_HEADER] + text + PNG[BEHIND_HEADER:], 48, 32))
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))


@pytest.mark.parametrize("marker", [*range(0xE2, 0xEE), 0xEF, 0xFE])
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"MPF\0garbage", b"ICC_PROFILE\0", b"Photoshop 3.0\x008BIM\4\4", b"\xff" * 99]
)
def test_metadata_of_a_jpeg_decides_nothing(marker: int, body: bytes) -> None:
    data = encode(FRAMES[0], "JPEG", quality=90)
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    facts, pixels = seen(data[:2] + segment + data[2:])
    assert facts.format == "JPEG"
    assert np.array_equal(pixels, seen(data)[1])


GIF = several("GIF", duration=100, disposal=2)
CONTROLS = [at for at in range(len(GIF)) if GIF.startswith(b"\x21\xf9\x04", at)]


@pytest.mark.parametrize("frame", [1, 2, 3])
@pytest.mark.parametrize("more", [1, 2, 3, 4, 5, 7, 9, 12, 17, 18, 19, 40])
def test_a_gif_cut_in_a_later_frame_shows_its_first(frame: int, more: int) -> None:
    facts, pixels = seen(GIF[: CONTROLS[frame] + more])
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))
    assert facts.frames is None


def test_whole_frames_of_a_gif_are_counted_whatever_stands_between_them() -> None:
    assert seen(GIF)[0].frames == 4
    assert seen(GIF[: CONTROLS[2]])[0].frames == 2
    empty_control = GIF[: CONTROLS[2]] + b"\x21\xf9\x00" + GIF[CONTROLS[2] + 8 :]
    assert seen(empty_control)[0].frames == 4


TIFF = several("TIFF")
PAGES = pages(TIFF)


def link_of(page: int) -> int:
    return PAGES[page] + 2 + 12 * int.from_bytes(TIFF[PAGES[page] : PAGES[page] + 2], "little")


def edited(at: int, value: bytes) -> bytes:
    return TIFF[:at] + value + TIFF[at + len(value) :]


DAMAGED_TIFFS = {
    **{f"cut {more} into page {page}": TIFF[: PAGES[page] + more] for page in (1, 2, 3) for more in (0, 1, 2, 7, 20)},
    "a link beyond the file": edited(link_of(0), struct.pack("<I", len(TIFF) + 1000)),
    "a link to garbage": edited(link_of(0), struct.pack("<I", len(TIFF) - 1)),
    "a link back": edited(link_of(1), struct.pack("<I", PAGES[0])),
    "a page without tags": edited(PAGES[1], b"\0\0"),
}


@pytest.mark.parametrize("damage", DAMAGED_TIFFS)
def test_a_tiff_damaged_in_a_later_page_shows_its_first(damage: str) -> None:
    facts, pixels = seen(DAMAGED_TIFFS[damage])
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))
    assert facts.frames is None


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "F", "larger", "unknown compression"])
def test_pages_of_another_kind_do_not_change_the_first(mode: str, compression: str | None) -> None:
    if mode == "I;16":
        other = Image.fromarray(np.asarray(FRAMES[1].convert("L")).astype(np.uint16) * 257)
    elif mode in ("larger", "unknown compression"):
        other = FRAMES[1].resize((200, 300))
    else:
        other = FRAMES[1].convert(mode)
    data = bytearray(encode(FRAMES[0], "TIFF", save_all=True, append_images=[other], compression=compression))
    if mode == "unknown compression":
        second = pages(bytes(data))[1]
        for at in range(second + 2, second + 2 + 12 * int.from_bytes(data[second : second + 2], "little"), 12):
            if data[at : at + 2] == struct.pack("<H", 259):
                data[at + 8 : at + 10] = struct.pack("<H", 34712)
    facts, pixels = seen(bytes(data))
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))
    assert facts.frames == 2


def test_a_webp_cut_in_a_later_frame_shows_its_first_and_one_cut_in_its_first_is_truncated() -> None:
    data = several("WEBP", lossless=True)
    first, second = (at for at in range(len(data)) if data.startswith(b"ANMF", at) and data.count(b"ANMF", 0, at) < 2)
    assert seen(data)[0].frames == 4
    facts, pixels = seen(data[: second + 30])
    assert facts.frames is None
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))
    assert inspect_image(data[: second - 9]).status == "truncated"
    assert inspect_image(data[: first + 40]).status == "truncated"


def test_a_webp_cut_in_its_metadata_is_whole() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = encode(FRAMES[0], "WEBP", lossless=True, exif=exif.tobytes())
    _, pixels = seen(data[:-10])
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))


def test_an_animated_png_cut_in_a_later_frame_shows_its_first() -> None:
    data = several("PNG")
    assert seen(data)[0].frames == 4
    for more in (0, 3, 4, 8, 40):
        facts, pixels = seen(data[: data.index(b"fdAT") + more])
        assert np.array_equal(pixels, np.asarray(FRAMES[0]))
        assert facts.frames is None


def test_a_jpeg_of_several_pictures_shows_its_first_and_counts_those_that_are_there() -> None:
    data = several("MPO", quality=92)
    facts, pixels = seen(data)
    assert (facts.format, facts.frames) == ("MPO", 4)
    second = data.index(b"\xff\xd8\xff", 10)
    for more in (0, 2, 10, 200):
        cut, same = seen(data[: second + more])
        assert cut.frames is None
        assert np.array_equal(same, pixels)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_marker_is_whole_and_one_that_lacks_more_is_truncated(progressive: bool) -> None:
    data = encode(FRAMES[0].resize((48, 32)), "JPEG", quality=90, progressive=progressive)
    _, pixels = seen(data)
    for missing in (1, 2):
        assert np.array_equal(seen(data[:-missing])[1], pixels)
    for missing in (8, 20, len(data) // 3):
        assert inspect_image(data[:-missing]).status == "truncated"


def test_a_progressive_jpeg_that_ends_between_two_scans_is_truncated() -> None:
    data = encode(FRAMES[0], "JPEG", quality=90, progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    last_tables = data.rindex(b"\xff\xc4", 0, last_scan)
    assert inspect_image(data[:last_tables]).status == "truncated"


def test_an_unknown_page_behind_one_of_another_mode_leaves_the_first_as_it_is() -> None:
    # Found by fuzzing: looking for pages left a decoder with the second one's mode and the first one's memory.
    first = FRAMES[0].quantize(16)
    data = bytearray(encode(first, "TIFF", save_all=True, append_images=[frame.copy() for frame in FRAMES[1:3]]))
    third = pages(bytes(data))[2]
    for at in range(third + 2, third + 2 + 12 * int.from_bytes(data[third : third + 2], "little"), 12):
        if data[at : at + 2] == struct.pack("<H", 262):
            data[at + 8 : at + 10] = struct.pack("<H", 99)
    facts, pixels = seen(bytes(data))
    assert np.array_equal(pixels, np.asarray(first.convert("RGB")))
    assert facts.frames == 3


def test_an_animated_png_whose_first_frame_cannot_be_unpacked_shows_its_default_picture() -> None:
    data = encode(FRAMES[3], "PNG", save_all=True, append_images=FRAMES[:2], default_image=True)
    assert np.array_equal(seen(data)[1], np.asarray(FRAMES[0]))
    start = data.index(b"fdAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    broken = png_chunk(b"fdAT", data[start : start + 4] + b"no pixels")
    _, pixels = seen(data[: start - 8] + broken + data[start + length + 4 :])
    assert np.array_equal(pixels, np.asarray(FRAMES[3]))


def test_a_jpeg_that_a_stray_marker_breaks_off_is_no_whole_one() -> None:
    data = encode(FRAMES[0], "JPEG", quality=90)[:-2]
    three_quarters = len(data) * 3 // 4
    assert jpeg.is_complete(data)
    assert not jpeg.is_complete(data[:three_quarters] + b"\xff\xc4\0\x02" + data[three_quarters:])


def test_an_icon_states_the_bytes_of_its_picture_to_no_effect() -> None:
    data = bytearray(icon(PNG, 48, 32))
    data[14:18] = struct.pack("<I", 20)
    assert np.array_equal(seen(bytes(data))[1], np.asarray(FRAMES[0]))


def test_pages_of_a_big_tiff_are_counted_and_cut_alike() -> None:
    others = [frame.copy() for frame in FRAMES[1:]]
    data = encode(FRAMES[0].copy(), "TIFF", save_all=True, append_images=others, big_tiff=True)
    facts, pixels = seen(data)
    assert facts.frames == 4
    cut, same = seen(data[: len(data) // 2])
    assert cut.frames is None
    assert np.array_equal(pixels, np.asarray(FRAMES[0]))
    assert np.array_equal(same, pixels)


def test_an_avif_sequence_cut_in_a_later_frame_shows_its_first() -> None:
    frames = [frame.resize((96, 64)) for frame in FRAMES]  # larger than what the first takes of the file
    data = encode(frames[0], "AVIF", save_all=True, append_images=frames[1:], quality=90)
    assert (inspect_image(data).status, inspect_image(data).frames) == ("ok", 4)
    for missing in (1, 100, 400):
        cut = data[:-missing]
        assert (inspect_image(cut).status, inspect_image(cut).frames) == ("ok", None)
        assert np.array_equal(np.asarray(decode_rgb(cut)), np.asarray(decode_rgb(data)))
    assert inspect_image(data[: data.index(b"mdat") + 20]).status != "ok"
