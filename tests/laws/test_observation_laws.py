"""Laws of recorded attention weights: they are the weights that attention applies to the values.

Weights are recorded by a second computation, which must include regions, masks, biases and changed denominators.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from variants import Variant, build, each_variant, tokens

from posbench.errors import UndefinedError
from posbench.kernels.dense import dense
from posbench.lm.attention_weights import AttentionWeightRecorder, last_token_attention
from posbench.position.call import AttentionCall, Kernel
from posbench.position.scheme import AttentionInputs, PositionScheme


class ValueRecorder(AttentionWeightRecorder):
    """Also records the values and the output of attention, and whether the softmax has the usual denominator."""

    def __init__(self, inner: PositionScheme) -> None:
        super().__init__(inner)
        self.values: list[Tensor] = []
        self.usual: list[bool] = []
        self.outputs: list[Tensor] = []

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> None:
        self.values.append(v_BHSD)
        self.usual.append(self.inner.softmax_normalizer(inputs) is None)
        super().attention(inputs, v_BHSD, kernel)

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        self.outputs.append(out_BHTD[:, :, -1].flatten(1))
        return super().attention_output(out_BHTD, x_BTW, layer)


def without_relative_values(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Runs `dense` without relative values, which are not part of the weights."""
    return dense(replace(call, relative_values=None))


@each_variant
@torch.no_grad()
def test_weighted_values_equal_the_output(variant: Variant) -> None:
    """In every layer: 1e-12. Weights sum to 1 where the denominator is unchanged."""
    built = build(variant)
    ids = tokens(2, built.length)
    recorder = ValueRecorder(built.scheme)
    observed = built.model.with_scheme(recorder)
    if not built.scheme.traits.softmax_attention:
        with pytest.raises(UndefinedError, match="without weights"):
            observed(ids)
        return
    observed(ids, kernel=without_relative_values)
    for weight_BHS, v_BHSD, usual, output in zip(
        recorder.weights_LBHS, recorder.values, recorder.usual, recorder.outputs, strict=True
    ):
        assert weight_BHS.shape == (2, 4, built.length)
        summed = torch.einsum("bhs,bhsd->bhd", weight_BHS, v_BHSD).flatten(1)
        torch.testing.assert_close(summed, output, rtol=0, atol=1e-12)
        assert weight_BHS.min() >= 0
        assert weight_BHS.sum(-1).max() < 1 + 1e-12
        if usual:
            assert weight_BHS.sum(-1).min() > 1 - 1e-12


@each_variant
@torch.no_grad()
def test_weights_over_a_cache_equal_one_pass(variant: Variant) -> None:
    """For schemes with `shared_prefill`: 1e-9."""
    built = build(variant)
    if not (built.scheme.traits.softmax_attention and built.scheme.traits.shared_prefill):
        return
    ids, length = tokens(1, built.length), built.length
    settings = {"kernel": dense, "length": length, "batch": 8}
    whole = last_token_attention(built.model, ids_NT=ids, cache=None, **settings)
    _, cache = built.model(ids[:, :-2], length=length, use_cache=True)
    after = last_token_attention(built.model, ids_NT=ids[:, -2:], cache=cache, **settings)
    assert whole.shape == (1, 2, 4, length)
    torch.testing.assert_close(after, whole, rtol=0, atol=1e-9)
