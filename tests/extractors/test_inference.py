"""Layers by oneDNN compute what a linear layer is, take over where it pays, and leave everything else alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
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
