"""Finds what is installed by the name of its kind: extractors and sources, our own and those of other packages."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from smp_features.errors import ConfigError, nearest

EXTRACTORS = "smp_features.extractors"
SOURCES = "smp_features.sources"
"""Entry-point groups in which another package names what it brings."""

_OWN = {
    EXTRACTORS: {
        "caption": "smp_features.extractors.caption:CaptionExtractor",
        "clip": "smp_features.extractors.clip:Clip",
        "perplexity": "smp_features.extractors.perplexity:PerplexityExtractor",
    },
    SOURCES: {"smpd": "smp_features.sources.smpd:SmpdSource"},
}
"""Our own, by name: found without an installed distribution, such as from `--py-files`."""


@cache
def _installed(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def kinds(group: str) -> tuple[str, ...]:
    """Return the names of all kinds of a group, our own first.

    >>> kinds(SOURCES)[0]
    'smpd'
    """
    return tuple(dict.fromkeys((*_OWN[group], *sorted(_installed(group)))))


def find(group: str, kind: str, setting: str) -> Any:
    """Return what a kind names, importing it.

    Args:
        group: `EXTRACTORS` or `SOURCES`.
        kind: A name of `kinds`; our own names win over those of other packages.
        setting: The configuration key that names the kind, for messages.

    Raises:
        ConfigError: There is no such kind, or its package cannot be imported.
    """
    own = _OWN[group].get(kind)
    try:
        if own is not None:
            module, _, name = own.partition(":")
            return getattr(import_module(module), name)
        if kind in _installed(group):
            return _installed(group)[kind].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{setting}: the kind '{kind}' is installed and cannot be imported ({error}).",
            "Install what its package needs, or take the kind out of the configuration.",
        ) from error
    raise ConfigError(
        f"{setting}: there is no kind '{kind}'.",
        f"{nearest(kind, kinds(group))} Another package brings further kinds by the entry-point group {group}.",
    )
