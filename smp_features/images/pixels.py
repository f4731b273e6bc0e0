"""Decoded pixels of any mode and depth, as the 8-bit RGB that is shown, in strips so that copies stay small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from smp_features.images.first_picture import FirstPicture

STRIP_PIXELS = 1 << 20
"""Pixels that are converted at a time: what a conversion needs beside its result is a few bytes for each."""

_WHITE = (255, 255, 255)
_SCALE_OF_BITS = {1: 255, 2: 85, 4: 17, 8: 1}
"""What a grey sample of so many bits is multiplied by when it is decoded to a byte."""


def to_rgb(image: Image.Image, first: FirstPicture, low_bytes: Image.Image | None = None) -> Image.Image:
    """Return a decoded picture as RGB: transparency on white, deep samples scaled to bytes, white where none is.

    Args:
        image: The decoded picture.
        first: What its file says beside the pixels.
        low_bytes: The lower halves of 16-bit colours, where a transparent one has to be told from its neighbours.
    """
    canvas = first.canvas or image.size
    frame = first.frame or (0, 0, *image.size)
    if _is_plain(image, first) and frame == (0, 0, *canvas):
        return image.convert("RGB")
    left, upper = (frame[0], frame[1]) if image.size == canvas else (0, 0)
    width, height = min(frame[2] - frame[0], image.width - left), min(frame[3] - frame[1], image.height - upper)
    scale = _scale_of(image, first) if _is_deep(image) else None
    opaque = first.opaque_if_clear and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    shown = Image.new("RGB", canvas, _WHITE)
    for top, bottom in _strips(width, height):
        box = (left, upper + top, left + width, upper + bottom)
        strip = image.crop(box)
        if scale is not None:
            rgb = _deep_strip(strip, first, scale)
        elif opaque:
            rgb = strip.convert("RGB")
        else:
            rgb = _strip(strip, first, None if low_bytes is None else low_bytes.crop(box))
        shown.paste(rgb, (frame[0], frame[1] + top))
    return shown


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _is_plain(image: Image.Image, first: FirstPicture) -> bool:
    """Return whether conversion needs nothing but the picture itself, and no copy beside its result."""
    told_apart = first.clear is not None or first.white_is_zero
    return not (told_apart or _is_deep(image) or _has_transparency(image))


def _has_transparency(image: Image.Image) -> bool:
    palette = image.palette if image.mode == "P" else None
    return (
        image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        or "transparency" in image.info
        or (palette is not None and palette.mode.endswith("A"))
    )


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    rows = max(1, STRIP_PIXELS // max(1, width))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _strip(strip: Image.Image, first: FirstPicture, low_bytes: Image.Image | None) -> Image.Image:
    if strip.mode == "La":
        strip = strip.convert("LA")
    if first.white_is_zero and strip.mode in ("L", "LA"):
        grey = ImageChops.invert(strip.getchannel("L"))
        strip = Image.merge("LA", (grey, strip.getchannel("A"))) if strip.mode == "LA" else grey
    if first.clear is not None:
        return _without(strip, first.clear, first.bits, low_bytes)
    if not _has_transparency(strip):
        return strip.convert("RGB")
    rgba = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*_WHITE, 255)), rgba).convert("RGB")


def _without(strip: Image.Image, clear: tuple[int, ...], bits: int, low_bytes: Image.Image | None) -> Image.Image:
    """Return a strip with the one value that means transparent in white."""
    values = np.array(strip.convert("RGB"))
    scale = _SCALE_OF_BITS.get(bits, 1) if len(clear) == 1 else 1
    mask = _equal(values, [value >> 8 if bits == 16 else value * scale for value in clear])
    if bits == 16 and low_bytes is not None:
        mask &= _equal(np.asarray(low_bytes), [value & 255 for value in clear])
    values[mask] = _WHITE
    return Image.fromarray(values)


def _equal(values: np.ndarray, clear: list[int]) -> np.ndarray:
    """Return where pixels, shape (height, width, 3), are of a grey or a colour; shape (height, width)."""
    mask = values[..., 0] == clear[0]
    for channel, value in enumerate(clear[1:], 1):
        mask &= values[..., channel] == value
    return mask


# -- deep samples -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """What stored samples are brought to 0 to 255 with: (sample - low) * 255 / span."""

    low: float
    span: float


def _scale_of(image: Image.Image, first: FirstPicture) -> _Scale:
    """Return what black and white are.

    Unsigned samples of up to 16 bits are scaled by their full range, signed ones by its positive half. 32-bit integers
    and floats carry no range, so the smallest customary one that holds the values is taken (0 to 1 for floats, 8 bit,
    16 bit), else their own minimum to maximum.
    """
    known = _white_of(image, first)
    if known is not None and not first.signed:
        return _Scale(0.0, known)
    low, high = _extrema(image, first)
    tops = [known] if known is not None else [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    top = next((top for top in tops if low >= 0 and high <= top), None)
    return _Scale(low, max(high - low, 1.0)) if top is None else _Scale(0.0, top)


def _white_of(image: Image.Image, first: FirstPicture) -> float | None:
    if image.mode == "F":
        return None
    if first.white is not None:
        return first.white
    if image.mode.startswith("I;16") or first.bits == 16:
        bits = first.bits if first.bits in (10, 12, 14) else 16
        return float((1 << bits - first.signed) - 1)
    return None


def _extrema(image: Image.Image, first: FirstPicture) -> tuple[float, float]:
    lows, highs = [], []
    for top, bottom in _strips(*image.size):
        values = _finite(image.crop((0, top, image.width, bottom)), first)
        lows.append(float(values.min()))
        highs.append(float(values.max()))
    return min(lows), max(highs)


def _finite(strip: Image.Image, first: FirstPicture) -> np.ndarray:
    """Return samples as float64, shape (height, width), with 0 where there is no number."""
    values = np.asarray(strip)
    if strip.mode == "I" and first.bits == 32 and not first.signed:
        values = values.view(np.uint32)  # decoded to signed integers of the same bits
    with np.errstate(invalid="ignore"):  # some bits of a damaged file are a signalling NaN
        return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _deep_strip(strip: Image.Image, first: FirstPicture, scale: _Scale) -> Image.Image:
    values = _finite(strip, first)
    shades = np.clip(np.rint((values - scale.low) * (255.0 / scale.span)), 0, 255).astype(np.uint8)
    if first.white_is_zero:
        shades = 255 - shades
    if first.clear is not None:
        shades[values == first.clear[0]] = 255
    return Image.fromarray(shades).convert("RGB")
