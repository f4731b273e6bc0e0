"""The configuration's section `models` becomes extractors: our own kinds and those of other packages alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from smp_features import plugins
from smp_features.config import ModelSettings
from smp_features.errors import ConfigError, UsageError, nearest
from smp_features.extractors.base import Extractor

ROLES: dict[str, dict[str, tuple[str, str]]] = {
    "caption": {"caption": ("image", "caption")},
    "clip": {"clip_image": ("image", "embedding"), "clip_text": ("text", "embedding")},
    "language": {"perplexity": ("text", "log_perplexity")},
}
"""What the paper's measures need of each role, whatever its kind: extractors by name, what each reads and a column."""


def build_extractors(models: Mapping[str, ModelSettings]) -> dict[str, Extractor]:
    """Return the configured extractors by name, in the order they run: those that make texts before those that read.

    No disk is touched, no hub asked and no torch imported; `Extractor.pinned` looks for the models' files.

    Args:
        models: The `models` section of the configuration.

    Raises:
        ConfigError: Two extractors have one name or disagree on their table, or a role's kind is not fit for it.

    Example:
        >>> from smp_features.config import Config
        >>> list(build_extractors(Config().models))
        ['caption', 'clip_image', 'clip_text', 'perplexity']
    """
    built: dict[str, Extractor] = {}
    for model, settings in models.items():
        kind = plugins.find(plugins.EXTRACTORS, settings.kind, f"models.{model}.kind")
        made: tuple[Extractor, ...] = kind.build(model, settings)
        _check_role(model, settings.kind, made)
        for extractor in made:
            if extractor.name in built:
                other = built[extractor.name].model
                raise ConfigError(
                    f"models.{model} makes an extractor '{extractor.name}', and so does models.{other}.",
                    "Give one of them another name.",
                )
            if extractor.makes_text is not None and extractor.reads == "text":
                raise ConfigError(f"models.{model} makes texts of texts; only texts of pictures are provided for.")
            _check_table(extractor, built.values())
            built[extractor.name] = extractor
    return {each.name: each for each in sorted(built.values(), key=lambda each: each.makes_text is None)}


def chosen(extractors: Mapping[str, Extractor], names: Sequence[str] | None = None) -> list[Extractor]:
    """Return the named extractors, all of them for None, in the order they run.

    Args:
        extractors: All that are configured.
        names: Of extractors, or of models, each of which stands for all its extractors.

    Raises:
        UsageError: There is no such extractor.
    """
    known = {*extractors, *(extractor.model for extractor in extractors.values())}
    for name in names or ():
        if name not in known:
            raise UsageError(f"There is no extractor '{name}'.", nearest(name, known))
    return [each for each in extractors.values() if not names or each.name in names or each.model in names]


def _check_role(model: str, kind: str, made: Sequence[Extractor]) -> None:
    there = {extractor.name: extractor for extractor in made}
    for name, (reads, column) in ROLES.get(model, {}).items():
        extractor = there.get(name)
        columns = () if extractor is None else tuple(output.name for output in extractor.outputs)
        if extractor is None or extractor.reads != reads or column not in columns:
            raise ConfigError(
                f"models.{model} is of kind '{kind}', which makes no '{column}' of {reads}s as the role needs.",
                f"Give that model another name than {', '.join(ROLES)}, and leave models.{model} to a kind that does.",
            )


def _check_table(extractor: Extractor, others: Iterable[Extractor]) -> None:
    columns = [(column.name, column.arrow_type) for column in extractor.outputs]
    for other in others:
        if other.table != extractor.table:
            continue
        if (other.reads, other.makes_text) != (extractor.reads, extractor.makes_text) or columns != [
            (column.name, column.arrow_type) for column in other.outputs
        ]:
            raise ConfigError(
                f"The extractors '{other.name}' and '{extractor.name}' share the table {extractor.table} and do not "
                "make the same columns.",
                "The author of one of the kinds must name another table.",
            )
