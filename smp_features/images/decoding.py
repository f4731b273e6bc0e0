"""Bytes become an upright RGB picture, or a typed refusal; what bounds time and memory is checked before decoding."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from smp_features.images import avif, gif, ico, jpeg, png, ppm, tiff, webp
from smp_features.images.first_picture import FirstPicture, ImageRefused, cut
from smp_features.images.pixels import to_rgb

MAX_PIXELS = 64_000_000  # 192 MB as RGB; read from the header, so a bomb is refused before it is unpacked
MAX_ASPECT_RATIO = 20.0  # "resize the shorter side to 384" makes 384 x 7680 of the longest strip allowed

Image.init()  # registers the decoders here, once, since threads would race to do it
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
"""Raster formats that are tried. Pillow's others run interpreters (EPS) or are no photographs."""

DECODING: Mapping[str, object] = {
    "version": 2,
    "alpha": "on white",
    "frame": "first",
    "orientation": "exif",
    "deep": "rescaled by mode",
}
"""What decides a decoded picture's pixels; part of every image extractor's fingerprint."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Statuses say what is wrong with a picture; Pillow's warnings about bombs and broken tags would only add lines.
# Set here once because `warnings.catch_warnings` is not thread-safe and decoding runs in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class ImageFacts:
    """What a full decode found out about some bytes.

    Attributes:
        width: Pixels across, upright (after EXIF orientation); null when the header could not be read.
        height: Pixels down, upright; null when the header could not be read.
        format: Pillow's name of the format, such as `JPEG`; null when none was recognised.
        frames: Frames in the file, of which only the first is used; null when they could not be counted.
        status: `ok`, or a permanent refusal: `empty`, `not_an_image`, `truncated`, `too_many_pixels`,
            `bad_aspect_ratio`, `too_many_scans`, `decode_error`.
        error: Why it was refused, in a few words; null when `ok`.
    """

    width: int | None
    height: int | None
    format: str | None
    frames: int | None
    status: str
    error: str | None


def inspect_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, max_aspect_ratio: float = MAX_ASPECT_RATIO
) -> ImageFacts:
    """Decode an image in full, since a cut file only shows itself then, and say what it is. Never raises on content.

    Args:
        data: The bytes of the file.
        max_pixels: Pictures with more pixels are refused from their header, undecoded.
        max_aspect_ratio: Pictures whose long side exceeds the short side by more than this factor are refused.

    Example:
        >>> inspect_image(b"<html>").status
        'not_an_image'
    """
    return _decode(data, max_pixels, max_aspect_ratio)[0]


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS, max_aspect_ratio: float = MAX_ASPECT_RATIO) -> Image.Image:
    """Decode an image to an upright 8-bit RGB picture: first frame, transparency on white, deep modes rescaled.

    Args:
        data: The bytes of the file.
        max_pixels: As for `inspect_image`.
        max_aspect_ratio: As for `inspect_image`.

    Raises:
        ImageRefused: With the status that `inspect_image` reports for the same bytes.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(file, "PNG")
        >>> decode_rgb(file.getvalue()).getpixel((0, 0))  # transparent red, on white
        (255, 255, 255)
    """
    facts, picture = _decode(data, max_pixels, max_aspect_ratio)
    if picture is None:
        raise ImageRefused(facts.status, facts.error or facts.status)
    return picture


def _decode(data: bytes, max_pixels: int, max_aspect_ratio: float) -> tuple[ImageFacts, Image.Image | None]:
    if not data:
        return ImageFacts(None, None, None, None, "empty", "The file has no bytes."), None
    first = _first_picture(data)
    facts, picture = _decode_first(first, max_pixels, max_aspect_ratio)
    if picture is None and first.otherwise is not None:
        return _decode_first(first.otherwise, max_pixels, max_aspect_ratio)
    return facts, picture


def _decode_first(
    first: FirstPicture, max_pixels: int, max_aspect_ratio: float
) -> tuple[ImageFacts, Image.Image | None]:
    size, image_format = first.size, first.format
    try:
        if size is not None and min(size) > 0:  # what has no size is for the decoder to name
            _check_size(*size, max_pixels, max_aspect_ratio)
        if first.refused is not None:
            raise first.refused
        image = Image.open(io.BytesIO(first.data), formats=FORMATS)
        image_format = image_format or image.format
        size = first.canvas or image.size
        _check_size(*size, max_pixels, max_aspect_ratio)
        # What Pillow counts by looking through the file was counted by now; the header of the others says it.
        frames = int(image.n_frames) if first.format is None and hasattr(image, "n_frames") else first.frames
        picture = _upright_rgb(_load(image, first), first)
    except MemoryError:
        raise  # the machine's failure, not the picture's: a later try may succeed
    except ImageRefused as refusal:
        status, error = refusal.status, refusal.message
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        status, error = "too_many_pixels", f"The header promises more than {max_pixels:,} pixels."
    except UnidentifiedImageError:
        status, error = "not_an_image", "No supported image format was recognised."
        size = image_format = None
    except Exception as failure:  # decoders raise whatever their parsers do; only decoding is inside this `try`
        status, error = _name_decode_failure(failure)
    else:
        return ImageFacts(picture.width, picture.height, image_format, frames, "ok", None), picture
    width, height = size or (None, None)
    return ImageFacts(width, height, image_format, None, status, error), None


_CONTAINERS: tuple[tuple[int, bytes, Callable[[bytes], FirstPicture]], ...] = (
    (0, b"\xff\xd8\xff", jpeg.first_picture),
    (0, png.SIGNATURE, png.first_picture),
    (0, b"GIF87a", gif.first_picture),
    (0, b"GIF89a", gif.first_picture),
    (0, b"RIFF", webp.first_picture),
    (0, b"II", tiff.first_picture),
    (0, b"MM", tiff.first_picture),
    (0, b"\0\0\1\0", ico.first_picture),
    (0, b"P", ppm.first_picture),
    (4, b"ftyp", avif.first_picture),
)
"""Where a format's signature stands, what it is, and what knows the format."""


def _first_picture(data: bytes) -> FirstPicture:
    """Return what the container says; a damaged one is left to the decoder, which knows what to call it."""
    for at, signature, of_format in _CONTAINERS:
        if data.startswith(signature, at):
            try:
                return of_format(data)
            except (struct.error, IndexError, ValueError, OverflowError):
                return FirstPicture(data, frames=None)
    return FirstPicture(data, opaque_if_clear=data.startswith(b"BM"))


def _check_size(width: int, height: int, max_pixels: int, max_aspect_ratio: float) -> None:
    if width * height > max_pixels:
        raise ImageRefused("too_many_pixels", f"{width} x {height} is more than {max_pixels:,} pixels.")
    if max(width, height) > max_aspect_ratio * min(width, height):
        raise ImageRefused("bad_aspect_ratio", f"{width} x {height} is longer than {max_aspect_ratio:g} to 1.")


def _name_decode_failure(failure: Exception) -> tuple[str, str]:
    text = str(failure).lower()
    if isinstance(failure, EOFError) or "truncated" in text or "unexpected end" in text or "not enough" in text:
        return "truncated", "The file ends before the picture does."
    # Pillow's own words may quote bytes of the file, so only the kind of failure is told.
    return "decode_error", f"The picture could not be decoded ({type(failure).__name__})."


def _load(image: Image.Image, first: FirstPicture) -> Image.Image:
    """Decode the pixels, those of a JPEG also where only its end marker is missing."""
    try:
        image.load()
    except OSError as failure:
        if image.format != "JPEG" or _name_decode_failure(failure)[0] != "truncated":
            raise
        return _load_without_end(first.data)
    return image


_END_MARKER = b"\xff\xd9"
_MORE_DATA = (b"\xa5" * 64, b"\x5a" * 64)


def _load_without_end(data: bytes) -> Image.Image:
    """Decode a JPEG that lacks its end marker and nothing else.

    If every pixel was in the file, then whatever further data stands before the end marker changes none of them.

    Args:
        data: The file.

    Raises:
        ImageRefused: More is missing (`truncated`).
    """
    if not jpeg.is_complete(data):
        raise cut()
    ended, *continued = (
        Image.open(io.BytesIO(data.rstrip(b"\xff") + more + _END_MARKER), formats=("JPEG",))
        for more in (b"", *_MORE_DATA)
    )
    if any(other.tobytes() != ended.tobytes() for other in continued):
        raise cut()
    return ended


def _upright_rgb(image: Image.Image, first: FirstPicture) -> Image.Image:
    transpose = _UPRIGHT.get(_orientation(image))
    picture = to_rgb(image, first, _low_bytes(first) if first.clear and image.mode == "RGB" else None)
    return picture if transpose is None else picture.transpose(transpose)


def _low_bytes(first: FirstPicture) -> Image.Image | None:
    """Return the lower halves of 16-bit colours, which Pillow cuts off; null for others."""
    if first.bits != 16:
        return None
    image = Image.open(io.BytesIO(first.data), formats=("PNG",))
    # The same decoder, told to take the other byte of each pair.
    with_low: Callable[[Any], Any] = getattr(type(image.tile[0]), "_make", tuple)  # plain tuples before Pillow 11
    image.tile = [with_low((*tile[:3], "RGB;16L")) for tile in image.tile]
    image.load()
    return image


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken tag costs the orientation, not the picture
        return 1
    return value if isinstance(value, int) else 1
