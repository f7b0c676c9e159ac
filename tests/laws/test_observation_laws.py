"""Laws of recorded attention weights: they are the weights that attention applies to the values.

Weights are recorded by a second computation, which must include regions, masks, biases and changed denominators.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from variants import Variant, each_variant, run, tokens

from posbench.errors import UndefinedError
from posbench.kernels.dense import dense
from posbench.lm.attention_weights import AttentionWeightRecorder, last_token_attention
from posbench.position.call import AttentionCall, Kernel
from posbench.position.scheme import AttentionInputs, PositionScheme


class ValueRecorder(AttentionWeightRecorder):
    """Also records the values of each layer, and whether its softmax has the usual denominator."""

    def __init__(self, inner: PositionScheme) -> None:
        super().__init__(inner)
        self.values: list[Tensor] = []
        self.usual: list[bool] = []

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> None:
        self.values.append(v_BHSD)
        self.usual.append(self.inner.softmax_normalizer(inputs) is None)
        super().attention(inputs, v_BHSD, kernel)


def without_relative_values(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Runs `dense` without relative values, which are not part of the weights."""
    return dense(replace(call, relative_values=None))


@each_variant
@torch.no_grad()
def test_weighted_values_equal_the_output(variant: Variant) -> None:
    """In every layer: 1e-12. Weights sum to 1 where the denominator is unchanged."""
    subject = run(variant)
    ids, outputs = tokens(2, subject.length), []
    recorder = ValueRecorder(subject.scheme)
    for block in subject.model.blocks:
        block.out.register_forward_pre_hook(lambda module, inputs: outputs.append(inputs[0][:, -1]))
    if not subject.scheme.traits.softmax_attention:
        with pytest.raises(UndefinedError, match="without weights"):
            subject.model(ids, scheme=recorder)
        return
    subject.model(ids, scheme=recorder, kernel=without_relative_values)
    for weight_BHS, v_BHSD, usual, output in zip(
        recorder.weights_LBHS, recorder.values, recorder.usual, outputs, strict=True
    ):
        assert weight_BHS.shape == (2, 4, subject.length)
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
    subject = run(variant)
    if not (subject.scheme.traits.softmax_attention and subject.scheme.traits.shared_prefill):
        return
    ids, length = tokens(1, subject.length), subject.length
    settings = {"kernel": dense, "length": length, "batch": 8}
    whole = last_token_attention(subject.model, subject.scheme, ids_NT=ids, cache=None, **settings)
    _, cache = subject.model(ids[:, :-2], scheme=subject.scheme, length=length, use_cache=True)
    after = last_token_attention(subject.model, subject.scheme, ids_NT=ids[:, -2:], cache=cache, **settings)
    assert whole.shape == (1, 2, 4, length)
    torch.testing.assert_close(after, whole, rtol=0, atol=1e-9)
