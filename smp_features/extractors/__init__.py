"""Extractors turn image bytes or text into features; here the configuration becomes the four of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smp_features.extractors.base import Extractor
from smp_features.extractors.caption import CaptionExtractor
from smp_features.extractors.clip import ClipImageExtractor, ClipTextExtractor
from smp_features.extractors.clip_names import find_clip
from smp_features.extractors.model_files import find_model
from smp_features.extractors.perplexity import PerplexityExtractor

if TYPE_CHECKING:
    from smp_features.config import ModelsConfig

__all__ = ["build_extractors"]


def build_extractors(models: ModelsConfig) -> dict[str, Extractor]:
    """Return the configured extractors by name: `caption`, `clip_image`, `clip_text`, `perplexity`, in this order.

    Local folders are digested here; no weights are loaded and nothing is fetched from a hub.

    Args:
        models: The `models` section of the configuration.

    Raises:
        ModelError: A folder that is not there, or an open_clip name, tag or activation that does not fit.
    """
    caption, clip, language = models.caption, models.clip, models.language
    clip_files, architecture = find_clip("models.clip.id", clip.id, clip.pretrained, clip.revision)
    extractors: tuple[Extractor, ...] = (
        CaptionExtractor(
            files=find_model("models.caption.id", caption.id, caption.revision),
            prompt=caption.prompt,
            dtype=caption.dtype,
            max_new_tokens=caption.max_new_tokens,
            num_beams=caption.num_beams,
            max_batch=caption.max_batch,
        ),
        ClipImageExtractor(clip_files, architecture, clip.dtype, clip.max_batch),
        ClipTextExtractor(clip_files, architecture, clip.dtype, clip.max_batch),
        PerplexityExtractor(
            files=find_model("models.language.id", language.id, language.revision),
            dtype=language.dtype,
            max_tokens=language.max_tokens,
            max_batch=language.max_batch,
        ),
    )
    return {extractor.name: extractor for extractor in extractors}
