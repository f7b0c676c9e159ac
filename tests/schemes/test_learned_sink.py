"""Learned sink against GPT-OSS. Tolerance 1e-12 in float64, also of gradients."""

from types import SimpleNamespace

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from posbench.schemes.learned_sink import LearnedSink
from posbench.schemes.rope import RoPE

ROPE = {"_target_": "posbench.schemes.rope.RoPE"}


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_equals_gpt_oss(layer: int) -> None:
    torch.manual_seed(0)
    scheme = LearnedSink(SHAPE, ROPE).double()
    with torch.no_grad():
        scheme.sink_LH.normal_()
    inputs, v = attention_inputs(20, layer), values()
    q, k = RoPE(SHAPE).qk(inputs)
    module = SimpleNamespace(num_key_value_groups=1, sinks=scheme.sink_LH[layer], training=False)
    out, _ = eager_attention_forward(module, q, k, v, causal(20)[None, None], SHAPE.head_dim**-0.5)
    expected = out.transpose(1, 2)
    mine = attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.sink_LH, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_nested_sinks_add() -> None:
    nested = LearnedSink(
        SHAPE, {"_target_": "posbench.schemes.learned_sink.LearnedSink", "base_scheme": ROPE}
    ).double()
    inner = nested.members[0]
    one = LearnedSink(SHAPE, ROPE).double()
    one.sink_LH.data = torch.logaddexp(nested.sink_LH, inner.sink_LH).detach()
    inputs, v = attention_inputs(), values()
    torch.testing.assert_close(attention(nested, inputs, v), attention(one, inputs, v), rtol=0, atol=1e-12)


def test_each_layer_and_head_has_its_own_logit() -> None:
    assert [tuple(p.shape) for p in LearnedSink(SHAPE, ROPE).parameters()] == [(2, SHAPE.n_heads)]
