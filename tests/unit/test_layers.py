"""Layers that networks share: products by oneDNN give what torch's own give, a layer that is asked gives torch's bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tastemaker.models.layers import mlp
from tastemaker.models.linear import Linear, linear


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(1, 70),
    st.integers(1, 70).map(lambda width: width * 9),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_products_and_gradients_are_those_of_double_precision(rows, width, following, shifted, turned, seed):
    # 2,049 rows and more go through the weights' gradient in parts; few go to torch.
    rows = rows if rows < 4 else 2047 + rows
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        torch.randn(shape, generator=generator) for shape in ((width, rows), (following, width), (following,))
    ]
    value = drawn[0].t() if turned else drawn[0].t().contiguous()
    given_ = [value, drawn[1], drawn[2] if shifted else None]
    weigh = torch.randn((rows, following), generator=generator)
    found, expected = (
        [None if part is None else part.detach().to(kind).requires_grad_() for part in given_]
        for kind in (torch.float32, torch.float64)
    )
    product, exact = linear(*found), functional.linear(*expected)
    product.backward(weigh)
    exact.backward(weigh.double())
    # Sums of at most 2,052 products of normal draws in float32: an error near sqrt(2052) * 1e-7 * the largest.
    torch.testing.assert_close(product.double(), exact, atol=1e-4, rtol=1e-4)
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-3, rtol=1e-4)


def test_a_layer_that_is_asked_gives_torchs_bits():
    torch.manual_seed(0)
    layer, value = Linear(33, 170), torch.randn(500, 33)
    expected = functional.linear(value, layer.weight, layer.bias)
    assert torch.equal(layer.eval()(value), expected)
    torch.testing.assert_close(layer.train()(value), expected)


@pytest.mark.parametrize(
    "value", [torch.ones(64, 32, 64), torch.ones(2**11), torch.ones(2048, 64, dtype=torch.float64)]
)
def test_what_onednn_is_not_asked_for_goes_to_torch(value):
    layer = Linear(value.shape[-1], 1024).to(value.dtype).train()
    assert value.numel() * 1024 >= 2**20  # large enough for oneDNN
    assert torch.equal(layer(value), functional.linear(value, layer.weight, layer.bias))


@pytest.mark.filterwarnings("ignore:TF32")
def test_who_switches_onednn_off_gets_torch():
    layer, value = Linear(64, 1024).train(), torch.randn(2048, 64)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(layer(value), functional.linear(value, layer.weight, layer.bias))
        assert type(layer(value).grad_fn).__name__ == "AddmmBackward0"
    assert type(layer(value).grad_fn).__name__ == "_ProductBackward"


def test_products_of_bfloat16_under_autocast_stay_so():
    layer = Linear(64, 1024).train()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2048, 64)).dtype == torch.bfloat16


def test_a_perceptron_has_nothing_behind_its_last_layer():
    layers = mlp((4, 3, 2), dropout=0.5)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "ByteDropout", "Linear"]
    assert [name for name, _ in layers.named_parameters()] == ["0.weight", "0.bias", "3.weight", "3.bias"]
