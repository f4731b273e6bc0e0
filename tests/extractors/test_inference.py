"""Layers by oneDNN compute what a linear layer is, take over where it pays, and leave everything else alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.pytorch_utils import Conv1D

from smp_features.extractors.inference import MIN_PRODUCTS, for_inference, has_onednn

CPU = torch.device("cpu")
IN, OUT = 96, 160
FEW, MANY = 2, MIN_PRODUCTS // (IN * OUT) + 1


@pytest.fixture
def called(monkeypatch):
    """Count the calls of oneDNN; there are none where it is missing."""
    calls = []
    if not has_onednn():
        return calls
    computed = torch.ops.mkldnn._linear_pointwise

    def count(x, *rest):
        calls.append(tuple(x.shape))
        return computed(x, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", count)
    return calls


def by_numpy(layer, x):
    weight = layer.weight.detach().double().numpy()
    bias = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    return x.double().numpy() @ (weight if isinstance(layer, Conv1D) else weight.T) + bias


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(IN, OUT), lambda: nn.Linear(IN, OUT, bias=False), lambda: Conv1D(OUT, IN)]
)
@pytest.mark.parametrize("shape", [(FEW, IN), (MANY, IN), (3, MANY, IN)])
def test_a_layer_is_computed_as_defined_and_by_onednn_where_it_is_large(called, make, shape):
    torch.manual_seed(5)
    layer = for_inference(nn.Sequential(make()), CPU)[0]
    x = torch.randn(*shape)
    with torch.inference_mode():
        found = layer(x)
        turned = layer(x.transpose(0, 1).contiguous().transpose(0, 1))  # the same, laid out otherwise
    assert found.shape == (*shape[:-1], OUT)
    np.testing.assert_allclose(found.numpy(), by_numpy(layer, x), atol=1e-5)
    np.testing.assert_allclose(turned.numpy(), by_numpy(layer, x), atol=1e-5)
    assert len(called) == (2 if has_onednn() and shape != (FEW, IN) else 0)


def attention_by_numpy(layer, x, mask):
    """Multi-head self-attention after its definition: softmax(q kᵀ / √width + mask) v, for each head."""

    def times(x, weight, bias):
        return x @ weight.detach().double().numpy().T + (0 if bias is None else bias.detach().double().numpy())

    x = x.double().numpy()
    batch, length, width = x.shape
    parts = np.split(times(x, layer.in_proj_weight, layer.in_proj_bias), 3, axis=-1)
    q, k, v = (part.reshape(batch, length, layer.num_heads, -1).swapaxes(1, 2) for part in parts)
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    scores = np.exp(scores if mask is None else scores + mask.double().numpy())
    attended = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(batch, length, width)
    return times(attended, layer.out_proj.weight, layer.out_proj.bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch", [1, 40])
def test_attention_is_computed_as_defined_and_by_onednn_where_it_is_large(called, batch, causal, bias):
    torch.manual_seed(5)
    length = 9
    layer = for_inference(nn.MultiheadAttention(IN, 4, bias=bias, batch_first=True), CPU)
    if bias:
        nn.init.normal_(layer.in_proj_bias)
        nn.init.normal_(layer.out_proj.bias)
    mask = torch.full((length, length), float("-inf")).triu(1) if causal else None
    x = torch.randn(batch, length, IN)
    with torch.inference_mode():
        found, weights = layer(x, x, x, need_weights=False, attn_mask=mask)
    assert weights is None
    np.testing.assert_allclose(found.numpy(), attention_by_numpy(layer, x, mask), atol=1e-5)
    assert len(called) == (2 if has_onednn() and batch > 1 else 0)


def test_attention_asked_for_otherwise_is_torchs_own(called):
    torch.manual_seed(5)
    x, other = torch.randn(2, 40, 9, IN)
    ignored = torch.arange(9).expand(40, 9) >= torch.arange(1, 41).clamp(max=9)[:, None]
    calls = [
        ((x, x, x), {}),
        ((x, x, x), {"need_weights": True, "attn_mask": None}),
        ((x, other, other), {"need_weights": False, "attn_mask": None}),
        ((x, x, x), {"need_weights": False, "key_padding_mask": ignored}),
        ((x, x, x), {"need_weights": False, "attn_mask": torch.ones(9, 9).triu(1).bool()}),
        ((x[0], x[0], x[0]), {"need_weights": False, "attn_mask": None}),
    ]
    own = nn.MultiheadAttention(IN, 4, batch_first=True).eval()
    layer = for_inference(nn.MultiheadAttention(IN, 4, batch_first=True), CPU)
    layer.load_state_dict(own.state_dict())
    with torch.inference_mode():
        for given, asked in calls:
            for found, expected in zip(layer(*given, **asked), own(*given, **asked), strict=True):
                torch.testing.assert_close(found, expected)
    assert not called


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_blips_attention_is_computed_as_defined_and_at_once(called, monkeypatch, dtype, close):
    torch.manual_seed(5)
    config = BlipVisionConfig(hidden_size=IN, num_attention_heads=4)
    layer = for_inference(BlipAttention(config).to(dtype), CPU)
    fused = []
    computed = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *q, **named: fused.append(q) or computed(*q, **named)
    )
    x = torch.randn(40, 9, IN).to(dtype)
    with torch.inference_mode():
        found, _ = layer(hidden_states=x)
    parts = SimpleNamespace(
        in_proj_weight=layer.qkv.weight, in_proj_bias=layer.qkv.bias, out_proj=layer.projection, num_heads=4
    )
    np.testing.assert_allclose(found.float().numpy(), attention_by_numpy(parts, x, None), atol=close)
    assert len(fused) == 1
    assert len(called) == (2 if has_onednn() and dtype == torch.float32 else 0)


def test_gradients_and_half_precision_and_other_layers_are_left_alone(called):
    layer = for_inference(nn.Sequential(nn.Linear(IN, OUT)), CPU)[0]
    layer(torch.randn(MANY, IN)).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        half = for_inference(nn.Sequential(nn.Linear(IN, OUT, dtype=torch.bfloat16)), CPU)
        assert half(torch.randn(MANY, IN, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert not called

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert type(for_inference(nn.Sequential(Doubled(IN, OUT)), CPU)[0]) is Doubled
