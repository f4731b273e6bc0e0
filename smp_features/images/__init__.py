"""Guarded image decoding: bytes become an upright RGB picture, or a typed refusal."""

from smp_features.images.decoding import (
    DECODING,
    FORMATS,
    MAX_ASPECT_RATIO,
    MAX_PIXELS,
    ImageFacts,
    decode_rgb,
    inspect_image,
)
from smp_features.images.first_picture import ImageRefused

__all__ = [
    "DECODING",
    "FORMATS",
    "MAX_ASPECT_RATIO",
    "MAX_PIXELS",
    "ImageFacts",
    "ImageRefused",
    "decode_rgb",
    "inspect_image",
]
