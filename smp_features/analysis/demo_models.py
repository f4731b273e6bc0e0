"""Says when captions and perplexities mean nothing, because the bundled demo models made them."""

from __future__ import annotations

from pathlib import Path

from smp_features.config import Config
from smp_features.extractors.zoo import is_zoo_model
from smp_features.sources.base import open_source


def demo_model_warning(config: Config) -> str | None:
    """Return the warning owed when the bundled demo models ran on posts that were not generated, else None.

    Args:
        config: Its model ids, and its source, which knows whether its posts were made up.
    """
    models = {name: getattr(settings, "id", None) for name, settings in config.models.items()}
    demo = [name for name, model in models.items() if isinstance(model, str) and is_zoo_model(model)]
    if not demo or open_source(config, Path()).generated:
        return None
    if config.source.path is None:
        condition = "Unless these posts were generated,"
    else:
        condition = "These posts were not generated, so"
    return (
        f"The bundled demo models ({', '.join(demo)}) are configured. {condition} captions and perplexities of the "
        "demo models mean nothing here."
    )
