"""Linear layers whose float32 products oneDNN works out while they learn.

PyTorch's own go to MKL, whose float32 kernels use half the width of an AMD processor's vector units: on an EPYC core of 2024 100 GFLOP/s where
oneDNN does 220. On processors where MKL uses all of it both take as long. The arithmetic is float32 in either; sums are in another order.

Shape letters: B rows, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ROWS_AT_ONCE = 2048
"""Of a weight's gradient: more do not stay in the processor's cache."""
_LEAST_PRODUCTS = 2**20
"""Layers of fewer multiplications take as long to be called as to be worked out, and stay with torch."""
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


class Linear(nn.Linear):
    """`nn.Linear`; a layer that learns, of float32 on a CPU, takes oneDNN's products. Asked in evaluation it gives `nn.Linear`'s bits.

    While it learns it is for plain backward passes: `torch.func`, second derivatives and fx's tracing need `nn.Linear`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, O)."""
        return linear(input, self.weight, self.bias) if self.training else super().forward(input)


def linear(value_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Value weight' + bias as `functional.linear` gives it, where it can by oneDNN; gradients are of the first order."""
    if not _can(value_BI, weight_OI):
        return functional.linear(value_BI, weight_OI, bias_O)
    product_BO: Tensor = _Product.apply(value_BI, weight_OI, bias_O)  # type: ignore[no-untyped-call]
    return product_BO


def _can(value: Tensor, weight: Tensor) -> bool:
    return (
        value.dim() == 2
        and value.numel() * len(weight) >= _LEAST_PRODUCTS
        and value.dtype == weight.dtype == torch.float32
        and value.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
        and bool(torch.backends.mkldnn.enabled)
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(value_BI, weight_OI)
        return _times(value_BI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        value_BI, weight_OI = ctx.saved_tensors
        for_value, for_weight, for_bias = ctx.needs_input_grad
        return (
            _times(grad_BO, weight_OI.t()) if for_value else None,
            _weight_gradient(grad_BO, value_BI) if for_weight else None,
            grad_BO.sum(0) if for_bias else None,
        )


def _weight_gradient(grad_BO: Tensor, value_BI: Tensor) -> Tensor:
    """(O, I), the product over rows."""
    found_IO: Tensor | None = None
    parts = (torch.split(whole, _ROWS_AT_ONCE) for whole in (grad_BO, value_BI))
    for grad, value in zip(*parts, strict=True):
        some_IO = _times(value.t(), grad.t())
        found_IO = some_IO if found_IO is None else found_IO.add_(some_IO)
    assert found_IO is not None
    return found_IO.t()


def _times(left: Tensor, right: Tensor, shift: Tensor | None = None) -> Tensor:
    """Left right' + shift."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, shift, "none", [], "")
    return found
