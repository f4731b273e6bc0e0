"""Hostile pictures are refused by their headers, no pixel decoded; what is decoded stays within memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from picture_files import encode, icon, png_chunk, scan_bomb, tiff
from PIL import Image

from smp_features.images import gif, inspect_image
from smp_features.images.jpeg import MAX_SCANS


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the opening of any file by Pillow a failure of the test: what is tested is decided before."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a decoder was given the file")

    monkeypatch.setattr("PIL.Image.open", refuse)


@pytest.mark.parametrize("repeats", [1_000, 20_000])
def test_a_jpeg_of_a_thousand_scans_is_refused_undecoded(repeats: int, undecoded: None) -> None:
    data = scan_bomb(1_000, repeats)
    began = time.process_time()
    facts = inspect_image(data)
    assert (facts.status, facts.width, facts.height, facts.format) == ("too_many_scans", 1_000, 1_000, "JPEG")
    assert time.process_time() - began < 1


def test_as_many_scans_as_any_encoder_writes_are_decoded() -> None:
    data = scan_bomb(64, 0)
    scans = data.count(b"\xff\xda")
    assert inspect_image(data).status == "ok"
    assert inspect_image(scan_bomb(64, MAX_SCANS - scans)).status == "ok"
    assert inspect_image(scan_bomb(64, MAX_SCANS - scans + 1)).status == "too_many_scans"


def test_scan_markers_within_a_thumbnail_are_no_scans() -> None:
    data = encode(Image.new("RGB", (16, 16)), "JPEG")
    thumbnail = b"Exif\0\0" + b"\xff\xda" * 500
    assert (
        inspect_image(data[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(thumbnail) + 2) + thumbnail + data[2:]).status
        == "ok"
    )


def promising(width: int, height: int) -> dict[str, bytes]:
    """Small files whose headers promise so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    png_file = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0"))
    webp = bytearray(encode(Image.new("RGBA", (1, 1)), "WEBP", exif=b"Exif\0\0II*\0", lossless=True))
    webp[24:30] = (min(width, 1 << 24) - 1).to_bytes(3, "little") + (min(height, 1 << 24) - 1).to_bytes(3, "little")
    jpeg = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    gif = bytearray(encode(Image.new("L", (1, 1)), "GIF"))
    gif[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    return {
        "PNG": png_file,
        "ICO": icon(png_file, 16, 16),
        "WEBP": bytes(webp),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "TIFF": tiff(b"\0", width, height, (8,), 1),
        "PPM": b"P6 %d %d 1023\n\0" % (width, height),
    }


@pytest.mark.parametrize("image_format", promising(1, 1))
@pytest.mark.parametrize(
    ("width", "height", "status"), [(10_000, 10_000, "too_many_pixels"), (1, 4_000, "bad_aspect_ratio")]
)
def test_what_a_header_promises_is_refused_undecoded(
    image_format: str, width: int, height: int, status: str, undecoded: None
) -> None:
    facts = inspect_image(promising(width, height)[image_format])
    assert (facts.status, facts.width, facts.height, facts.format) == (status, width, height, image_format)


def test_an_icon_whose_bitmap_is_larger_than_its_directory_says_is_refused_undecoded(undecoded: None) -> None:
    body = struct.pack("<IiiHHIIiiII", 40, 20_000, 40_000, 1, 1, 0, 0, 0, 0, 0, 0)
    data = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 1, len(body), 22) + body
    assert inspect_image(data).status == "too_many_pixels"


def test_a_tile_larger_than_its_picture_counts_as_the_pixels_it_unpacks_to(undecoded: None) -> None:
    data = bytearray(tiff(b"\0", 8, 8, (8,), 1))
    for at in range(len(data) - 12):
        if data[at : at + 4] in (struct.pack("<HH", 273, 4), struct.pack("<HH", 278, 3)):
            tag = 322 if data[at : at + 2] == struct.pack("<H", 273) else 323
            data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 30_000)
    assert inspect_image(bytes(data)).status == "too_many_pixels"


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "PNG"])
def test_a_hundred_thousand_frames_cost_no_more_than_a_second(image_format: str) -> None:
    frames = 300_000
    if image_format == "GIF":
        whole = encode(Image.new("L", (1, 1)), "GIF")
        image = whole[whole.index(b",") : -1]
        data = whole[:-1] + image * frames + b";"
    elif image_format == "TIFF":
        whole = tiff(b"\0\0", 1, 1, (8,), 1)
        link = int.from_bytes(whole[4:8], "little") + 2 + 12 * 10
        at = len(whole) + np.arange(frames) * 18
        page = np.zeros((frames, 18), np.uint8)
        page[:, 0] = 1
        page[:, 14:18] = np.append(at[1:], 0).astype("<u4").view(np.uint8).reshape(-1, 4)
        data = whole[:link] + struct.pack("<I", len(whole)) + whole[link + 4 :] + page.tobytes()
    else:
        whole = encode(Image.new("L", (1, 1)), "PNG")
        control = png_chunk(b"acTL", struct.pack(">II", frames, 0))
        data = whole[:33] + control + whole[33:-12] + png_chunk(b"fcTL", bytes(26)) * frames + whole[-12:]
    began = time.process_time()
    facts = inspect_image(data)
    assert (facts.status, facts.width) == ("ok", 1)
    assert facts.frames is None or facts.frames >= frames
    assert time.process_time() - began < 3


MEMORY = """
import resource, sys
from smp_features.images import gif, inspect_image
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(inspect_image(data).status, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_sixty_four_megapixels_of_sixteen_bit_grey_take_half_a_gigabyte() -> None:
    side = 8_000
    rows = zlib.compressobj(1)
    pixels = b"".join([*(rows.compress(bytes(2 * side + 1)) for _ in range(side)), rows.flush()])
    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    data = b"".join(
        [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    )
    done = subprocess.run([sys.executable, "-c", MEMORY], input=data, capture_output=True, check=True)
    status, mebibytes = done.stdout.split()
    assert status == b"ok"
    assert int(mebibytes) < 512  # 122 as decoded, 244 as RGB


def test_a_refusal_says_no_more_than_numbers() -> None:
    error = inspect_image(scan_bomb(64, MAX_SCANS)).error
    assert error == f"The picture has more than {MAX_SCANS} scans."


def test_a_file_of_nothing_but_segments_is_refused_undecoded(undecoded: None) -> None:
    data = encode(Image.new("L", (8, 8)), "JPEG")
    began = time.process_time()
    facts = inspect_image(data[:2] + b"\xff\xe5\0\x02" * 2_000_000 + data[2:])
    assert (facts.status, facts.error) == ("decode_error", "The file has more than 100,000 segments.")
    assert time.process_time() - began < 2


def test_a_tag_of_millions_of_values_is_refused_undecoded(undecoded: None) -> None:
    whole = tiff(b"\0" * 64, 8, 8, (8,), 1)
    page = int.from_bytes(whole[4:8], "little")
    offsets = next(at for at in range(page + 2, len(whole), 12) if whole[at : at + 2] == struct.pack("<H", 273))
    stated = struct.pack("<HHII", 273, 4, 2_000_000, len(whole))
    data = whole[:offsets] + stated + whole[offsets + 12 :] + bytes(8_000_000)
    facts = inspect_image(data)
    assert (facts.status, facts.error) == ("decode_error", "A tag of the file has more than 1,000,000 values.")


def test_comments_before_the_first_frame_of_a_gif_do_not_reach_a_decoder() -> None:
    whole = encode(Image.new("L", (8, 8)), "GIF")
    at = whole.index(b",")
    data = whole[:at] + b"\x21\xfe\x01A\0" * 300_000 + whole[at:]
    assert len(gif.first_picture(data).data) <= len(whole)
    facts = inspect_image(data)
    assert (facts.status, facts.frames) == ("ok", 1)
