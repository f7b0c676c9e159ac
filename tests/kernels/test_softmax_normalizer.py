"""`softmax_normalizer` with softmax_1, by which a head may attend to nothing.

Miller. Attention Is Off By One. 2023: https://www.evanmiller.org/attention-is-off-by-one.html
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from cases import case, gradients
from torch import Tensor

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.attention import attend
from posbench.position.geometry import Mask, Region
from posbench.position.scheme import AttentionInputs, PositionScheme


class SoftmaxOne(PositionScheme):
    """exp(x) / (1 + sum exp(x)), over all pairs or over two regions of them."""

    def __init__(self, split: bool = False, hidden: Mask | None = None) -> None:
        super().__init__()
        self.split, self.hidden = split, hidden

    def regions(self, inputs: AttentionInputs) -> list[Region]:
        if not self.split:
            return super().regions(inputs)
        return [Region(inputs.geo, lambda i, j: i - j < 3), Region(inputs.geo, lambda i, j: i - j >= 3)]

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        return self.hidden

    def softmax_normalizer(self, inputs: AttentionInputs) -> Callable[[Tensor], Tensor]:
        return F.softplus  # log(1 + e^lse), stable at both ends


def attend_with(scheme: PositionScheme, scale: float = 1.0) -> tuple[Tensor, list[Tensor]]:
    call, leaves = case("none")
    stream = torch.zeros(2, 12, 8, dtype=torch.float64)
    inputs = AttentionInputs(0, call.geo, stream, stream, call.q_BHTE * scale, call.k_BHSE)
    return attend(scheme, inputs, call.v_BHSD, KernelDispatcher("auto")), leaves


def with_zero_key() -> tuple[Tensor, list[Tensor]]:
    """Computes the same in torch with an extra key of logit zero and value zero."""
    call, leaves = case("none")
    call = replace(call)
    zero = torch.zeros(2, 2, 1, 4, dtype=torch.float64)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    mask = torch.cat((torch.ones(12, 1, dtype=torch.bool), causal), 1)
    out = F.scaled_dot_product_attention(
        call.q_BHTE,
        torch.cat((zero, call.k_BHSE), 2),
        torch.cat((zero, call.v_BHSD), 2),
        attn_mask=mask,
    )
    return out, leaves


def test_softmax_one_equals_a_key_of_zeros() -> None:
    for split in (False, True):
        (out, leaves), (expected, others) = attend_with(SoftmaxOne(split)), with_zero_key()
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        for one, other in zip(gradients(out, leaves), gradients(expected, others), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_row_without_visible_keys_is_zero_with_finite_gradients() -> None:
    out, leaves = attend_with(SoftmaxOne(hidden=lambda i, j: (i % 2 == 0) & (j >= 0)))
    assert (out[:, :, 1::2] == 0).all()
    assert (out[:, :, 0::2] != 0).all()
    for gradient in gradients(out, leaves):
        assert gradient.isfinite().all()


def test_huge_logits_neither_overflow_nor_vanish() -> None:
    out, leaves = attend_with(SoftmaxOne(), scale=1e4)
    assert out.isfinite().all()
    for gradient in gradients(out, leaves):
        assert gradient.isfinite().all()
