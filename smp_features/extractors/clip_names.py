"""Which model an open_clip id means: a built-in name with a tag, a hub repository, or a folder."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from smp_features.errors import ModelError, nearest
from smp_features.extractors.model_files import ModelFiles, find_model


def find_clip(
    setting: str, model_id: str, pretrained: str | None, revision: str | None
) -> tuple[ModelFiles, str | None]:
    """Return the files of an open_clip model, and its built-in architecture when it is one with a tag.

    Args:
        setting: The configuration key, for messages.
        model_id: A built-in name, `hf-hub:organisation/name`, `local-dir:` or plain folder, or `zoo:clip`.
        pretrained: The tag of a built-in name's weights.
        revision: The pinned commit of a hub repository; optional for a tag, whose weights go into the fingerprint.

    Raises:
        ModelError: An unknown name or tag, a tag without safetensors, or one trained with the other activation.
    """
    if model_id.startswith("hf-hub:"):
        files = ModelFiles(
            setting, model_id.removeprefix("hf-hub:"), revision=revision, weights="open_clip*.safetensors", hub=True
        )
        return files, None
    folder = model_id.removeprefix("local-dir:")
    if folder != model_id or model_id.startswith("zoo:") or Path(model_id).expanduser().is_dir():
        files = find_model(setting, folder, None)
        if files.folder is None:
            raise ModelError(f"'{folder}' ({setting}) is not a folder.", "Give a folder that holds an open_clip model.")
        return files, None
    return _find_tag(setting, model_id, pretrained, revision), model_id


def built_in_config(architecture: str) -> dict[str, Any]:
    """Return open_clip's own configuration of a model name.

    Raises:
        ModelError: There is no such name.
    """
    from open_clip.factory import get_model_config

    config = get_model_config(architecture)
    if config is None:
        raise ModelError(f"open_clip has no model named '{architecture}'.")
    return deepcopy(config)


def _find_tag(setting: str, architecture: str, pretrained: str | None, revision: str | None) -> ModelFiles:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if architecture not in open_clip.list_models():
        raise ModelError(
            f"'{architecture}' ({setting}) is no folder here and no open_clip model.",
            f"{nearest(architecture, open_clip.list_models())} Hub repositories are written hf-hub:organisation/name.",
        )
    section = setting.rpartition(".")[0]
    tags = list_pretrained_tags_by_model(architecture)
    tag = get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    if not tag:
        raise ModelError(
            f"{section}.pretrained does not name weights of '{architecture}' ({pretrained or 'nothing'} given).",
            nearest(pretrained or "", tags) if tags else f"open_clip has no weights for '{architecture}'.",
        )
    model_activation, weights_activation = (
        bool(built_in_config(architecture).get("quick_gelu")),
        bool(tag.get("quick_gelu")),
    )
    if model_activation != weights_activation:
        better = f"{architecture}-quickgelu" if weights_activation else architecture.removesuffix("-quickgelu")
        raise ModelError(
            f"The weights '{pretrained}' were trained with {'QuickGELU' if weights_activation else 'GELU'}, but "
            f"'{architecture}' ({setting}) computes the other activation: every vector would be off.",
            f"Set {setting}: {better}.",
        )
    repository, _, filename = str(tag.get("hf_hub", "")).rpartition("/")
    if not repository:
        raise ModelError(
            f"The weights '{pretrained}' of '{architecture}' ({setting}) exist only pickled, which is refused.",
            "Choose another tag, or convert them to safetensors and give the folder.",
        )
    stem = filename.rpartition(".")[0] or "open_clip*"
    return ModelFiles(setting, repository, revision=revision, tag=pretrained, weights=f"{stem}.safetensors", hub=True)
