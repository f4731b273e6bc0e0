"""Where the tiny trained demo models lie, and how to tell them from real ones."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

ZOO_FOLDER = Path(str(files(__name__)))
# By the job a model does in the pipeline; each folder holds weights (safetensors), configuration and tokenizer.
ZOO: dict[str, Path] = {
    "caption": ZOO_FOLDER / "blip",
    "clip": ZOO_FOLDER / "clip",
    "language": ZOO_FOLDER / "gpt2",
}
LOCAL_PREFIX = "local-dir:"
ZOO_PREFIX = "zoo:"


def is_zoo_model(path: str | Path) -> bool:
    """Return whether a model id names one of the demo models.

    What they say means nothing on other pictures and texts than the demo's, which is what callers have to tell.

    Args:
        path: A model id as configured: ``zoo:caption`` and the like, a folder, a folder behind open_clip's
            ``local-dir:``, or a hub name.
    """
    if str(path).startswith(ZOO_PREFIX):
        return str(path).removeprefix(ZOO_PREFIX) in ZOO
    folder = Path(str(path).removeprefix(LOCAL_PREFIX)).expanduser().resolve()
    return folder in {model.resolve() for model in ZOO.values()}
