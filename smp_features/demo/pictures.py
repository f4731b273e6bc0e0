"""Turns a made-up post's scene into the bytes of its image file, broken ones included."""

from __future__ import annotations

import io

import numpy as np

from smp_features.demo.population import HTML, INTACT, TRUNCATED, ZERO_BYTES, Posts
from smp_features.demo.scenes import render

PICTURE_SIZE = 96  # pixels, square
FILE_BYTES = (9_000, 12_000)  # drawn at random and reached by padding, so that the size tells nothing of the content
COMMENT_MARKER = b"\xff\xfe"
PICTURE_STREAM = 2
ERROR_PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>Photo unavailable</body></html>\n"


def image_bytes(posts: Posts, row: int, seed: int) -> bytes | None:
    """Return the bytes of a row's image file, or None where the file is to be missing."""
    fault = int(posts.image_fault[row])
    if fault == ZERO_BYTES:
        return b""
    if fault == HTML:
        return ERROR_PAGE
    rng = np.random.default_rng([seed, PICTURE_STREAM, int(posts.scene_id[row])])
    picture = render(posts.scene(row), rng, PICTURE_SIZE)
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=int(rng.integers(82, 93)))
    whole = _pad(encoded.getvalue(), int(rng.integers(*FILE_BYTES)))
    if fault == INTACT:
        return whole
    return whole[: len(whole) * 9 // 10] if fault == TRUNCATED else None


def _pad(jpeg: bytes, size: int) -> bytes:
    """Return the same picture with a comment segment that brings the file to ``size`` bytes."""
    filling = max(0, size - len(jpeg) - 4)
    segment = COMMENT_MARKER + (filling + 2).to_bytes(2, "big") + b" " * filling
    return jpeg[:2] + segment + jpeg[2:]
