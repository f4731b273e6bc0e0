"""Extractors turn image bytes or text into features; which there are, the configuration and what is installed say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smp_features.extractors.registry import build_extractors

__all__ = ["build_extractors"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the configuration imports the kinds in this package, and the registry the configuration.
    if name == "build_extractors":
        from smp_features.extractors.registry import build_extractors

        return build_extractors
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
