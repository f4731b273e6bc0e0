"""Guarded image decoding: bytes become an upright RGB picture, or a typed refusal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from smp_features.refusals import InputRefused

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
    "version": 1,
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


class ImageRefused(InputRefused):
    """Bytes that do not decode to a picture within the limits; statuses as in `ImageFacts`."""


@dataclass(frozen=True)
class ImageFacts:
    """What a full decode found out about some bytes.

    Attributes:
        width: Pixels across, upright (after EXIF orientation); null when the header could not be read.
        height: Pixels down, upright; null when the header could not be read.
        format: Pillow's name of the format, such as `JPEG`; null when none was recognised.
        frames: Frames in the file, of which only the first is used; null when they could not be counted.
        status: `ok`, or a permanent refusal: `empty`, `not_an_image`, `truncated`, `too_many_pixels`,
            `bad_aspect_ratio`, `decode_error`.
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
    width = height = frames = None
    image_format = None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        image_format = image.format
        _check_size(width, height, max_pixels, max_aspect_ratio)
        image.load()
        frames = _count_frames(image)
        picture = _upright_rgb(image)
    except MemoryError:
        raise  # the machine's failure, not the picture's: a later try may succeed
    except ImageRefused as refusal:
        status, error = refusal.status, refusal.message
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        status, error = "too_many_pixels", f"The header promises more than {max_pixels:,} pixels."
    except UnidentifiedImageError:
        status, error = "not_an_image", "No supported image format was recognised."
    except Exception as failure:  # decoders raise whatever their parsers do; only decoding is inside this `try`
        status, error = _name_decode_failure(failure)
    else:
        return ImageFacts(picture.width, picture.height, image_format, frames, "ok", None), picture
    return ImageFacts(width, height, image_format, frames, status, error), None


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


def _count_frames(image: Image.Image) -> int | None:
    try:
        return int(getattr(image, "n_frames", 1))
    except (OSError, EOFError, SyntaxError, ValueError):
        return None  # later frames are broken; the first, the only one used, was decoded


def _upright_rgb(image: Image.Image) -> Image.Image:
    picture = _to_rgb(image)
    transpose = _UPRIGHT.get(_orientation(image))
    return picture if transpose is None else picture.transpose(transpose)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken tag costs the orientation, not the picture
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale a deep single-channel picture, shape (height, width), to uint8; plain conversion would clip it.

    16-bit pixels scale by their full range. 32-bit integers and floats carry no range, so the smallest customary
    one that holds the values is taken (0 to 1 for floats, 8 bit, 16 bit), else their own minimum to maximum.
    """
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    tops = [65535.0] if mode.startswith("I;16") else [1.0, 255.0, 65535.0] if mode == "F" else [255.0, 65535.0]
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is None:
        finite, top = finite - low, max(high - low, 1.0)
    return np.clip(np.rint(finite * (255.0 / top)), 0, 255).astype(np.uint8)
