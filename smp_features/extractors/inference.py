"""A loaded model made ready to compute: on its device, in evaluation mode, its layers by what computes them faster."""

from __future__ import annotations

import platform
import sys
from functools import cache
from typing import Any

MIN_PRODUCTS = 1 << 20
"""Multiplications from which a layer is worth oneDNN's call, which costs ten microseconds more than MKL's."""


def for_inference(model: Any, device: Any) -> Any:
    """Move a torch model to its device, for inference alone.

    BLIP's vision tower, for whose attention transformers holds the scores of all pairs of patches, is given torch's
    fused attention, which holds few at a time and returns none: for 8 pictures of 577 patches one layer's took 0.19 s
    instead of 0.65 on one thread of an AMD EPYC.

    On a CPU of the x86 family, linear layers in float32, those inside attention too, are computed by oneDNN, which is
    part of torch, instead of MKL: on an AMD EPYC one thread multiplied 1,600 x 768 by 768 x 3,072 at 106 GFLOP/s
    instead of 87, and 8 rows at 83 instead of 49. Both sum in float32, in another order.

    Args:
        model: A `torch.nn.Module`; it is changed.
        device: A torch device.

    Returns:
        The model.
    """
    model = model.to(device).eval()
    faster = _fused_attention()
    if device.type == "cpu" and has_onednn():
        faster = faster | _onednn_layers()
    for module in model.modules():
        # By its very type: subclasses may do something of their own.
        module.__class__ = faster.get(type(module), type(module))
    return model


def has_onednn() -> bool:
    """Return whether this is an x86 processor and a torch with oneDNN's linear layer."""
    import torch

    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _fused_attention() -> dict[type, type]:
    """Return a fused layer for each kind of attention that transformers computes otherwise."""
    # A model with layers of this module has imported it, which takes seconds that no other model need spend.
    blip = sys.modules.get("transformers.models.blip.modeling_blip")
    return {} if blip is None else {blip.BlipAttention: _fused_blip_attention(blip.BlipAttention)}


@cache
def _fused_blip_attention(kind: Any) -> type:
    class FusedBlipAttention(kind):  # type: ignore[misc]
        def forward(self, hidden_states: Any, **unused: Any) -> Any:
            return self.projection(_attend(self.qkv(hidden_states), self.num_heads)), None

    return FusedBlipAttention


def _attend(packed: Any, heads: int, mask: Any = None) -> Any:
    """Return self-attention, (batch, length, width), over queries, keys and values, (batch, length, 3 x width)."""
    from torch.nn import functional

    query, key, value = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


@cache
def _onednn_layers() -> dict[type, type]:
    """Return, for each kind of layer, one that computes the same by oneDNN; torch is imported only here."""
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    def suits(x: torch.Tensor, weight: torch.Tensor) -> bool:
        of_one_type = x.dtype == weight.dtype == torch.float32
        products = x.numel() // x.shape[-1] * weight.numel()
        return of_one_type and not torch.is_grad_enabled() and products >= MIN_PRODUCTS

    def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    class OneDnnLinear(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return product(x, self.weight, self.bias) if suits(x, self.weight) else super().forward(x)

    class OneDnnConv1D(Conv1D):
        """A linear layer whose weight is stored the other way round."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return product(x, self.weight.t(), self.bias) if suits(x, self.weight) else super().forward(x)

    class OneDnnAttention(nn.MultiheadAttention):
        """Self-attention over whole sequences, as CLIP's towers call it; every other call is torch's own."""

        def forward(self, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
            mask = named.get("attn_mask")
            whole = query is key is value and query.dim() == 3 and self.batch_first
            asked = not rest and named.keys() <= {"need_weights", "attn_mask"} and not named.get("need_weights", True)
            known = mask is None or (mask.dim() == 2 and mask.is_floating_point())
            usual = self.in_proj_weight is not None and self.bias_k is None and not self.add_zero_attn
            usual = usual and not self.training  # nothing is dropped out
            if not (whole and asked and known and usual and suits(query, self.in_proj_weight)):
                return super().forward(query, key, value, *rest, **named)
            attended = _attend(product(query, self.in_proj_weight, self.in_proj_bias), self.num_heads, mask)
            return product(attended, self.out_proj.weight, self.out_proj.bias), None

    return {nn.Linear: OneDnnLinear, Conv1D: OneDnnConv1D, nn.MultiheadAttention: OneDnnAttention}
