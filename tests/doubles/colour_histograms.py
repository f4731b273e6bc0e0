"""What the package `colour_histogram` should find in a picture, pixel by pixel."""

from __future__ import annotations

import io

from PIL import Image


def shares_by_pixel(picture: bytes, threshold: int) -> list[float]:
    """Return the share of pixels in each corner of the colour cube: 4 for bright red, 2 for green, 1 for blue."""
    counts = [0] * 8
    pixels = list(Image.open(io.BytesIO(picture)).convert("RGB").getdata())
    for red, green, blue in pixels:
        counts[4 * (red >= threshold) + 2 * (green >= threshold) + (blue >= threshold)] += 1
    return [count / len(pixels) for count in counts]
