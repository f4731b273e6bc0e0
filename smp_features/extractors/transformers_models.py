"""What captioner and language model share: reading a transformers configuration and loading weights that fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smp_features.errors import ModelError
from smp_features.extractors.model_files import ModelFiles

if TYPE_CHECKING:
    import torch


def torch_dtype(name: str) -> torch.dtype:
    """Return torch's dtype for `float32`, `bfloat16` or `float16`."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def read_config(files: ModelFiles) -> dict[str, Any]:
    """Return a transformers model's config.json.

    Raises:
        ModelError: There is none, it names no model type, or it asks for code of its own to be run.
    """
    config = files.require_json("config.json")
    files.refuse_code()
    if not config.get("model_type"):
        raise ModelError(f"'{files.id}' ({files.setting}) is not a transformers model: config.json has no model_type.")
    return config


def check_weights(files: ModelFiles, class_name: str) -> Any:
    """Check that every parameter of a transformers model is in the files, in its shape; return the model.

    In the dtype of the configuration, which is the files' own where one program saved both, a parameter is a view of
    its file: only parameters that do not fit take memory.

    Args:
        files: The model.
        class_name: The transformers class, such as `AutoModelForCausalLM`.

    Raises:
        ModelError: As `load_weights`.
    """
    return load_weights(files, class_name, None)


def load_weights(files: ModelFiles, class_name: str, dtype: str | None) -> Any:
    """Return a transformers model on the CPU, every parameter of which came from the files.

    Args:
        files: The model.
        class_name: The transformers class, such as `AutoModelForCausalLM`.
        dtype: `float32`, `bfloat16` or `float16`; null for that of the configuration.

    Raises:
        ModelError: No safetensors, or weights that do not fit the configuration. (transformers itself would fill the
            gaps with random numbers and only warn.)
    """
    import transformers

    files.weight_files()
    try:
        model, loading = getattr(transformers, class_name).from_pretrained(
            str(files.locate()),
            dtype=torch_dtype(dtype) if dtype else "auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as failure:
        if "memory" in str(failure).lower():
            raise  # the machine's failure, which another try may survive
        raise ModelError(
            f"'{files.id}' ({files.setting}) could not be loaded as {class_name} ({type(failure).__name__}).",
            "Its configuration and weights must belong together; fetch the model again.",
        ) from failure
    absent = sorted(loading["missing_keys"]) + sorted(entry[0] for entry in loading["mismatched_keys"])
    if absent:
        raise ModelError(
            f"The weights of '{files.id}' ({files.setting}) do not fit its configuration: {len(absent)} parameters are "
            f"missing or of another shape, the first {absent[0]}.",
            "Its configuration and weights must belong together; fetch the model again.",
        )
    return model
