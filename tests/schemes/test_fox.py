"""FoX against x-transformers' data-dependent ALiBi and against products of gates. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from torch import Tensor
from x_transformers.x_transformers import DataDependentAlibi

from posbench.errors import ConfigError
from posbench.position.scheme import AttentionInputs
from posbench.schemes.fox import FoX

TOKENS = 12


def fox() -> FoX:
    torch.manual_seed(0)
    scheme = FoX(SHAPE).double()
    with torch.no_grad():
        for parameter in scheme.parameters():  # open and closed gates
            parameter.normal_()
    return scheme


def x_transformers(scheme: FoX, inputs: AttentionInputs, v: Tensor) -> Tensor:
    theirs = DataDependentAlibi(SHAPE.d_model, SHAPE.n_heads).double()
    linear = theirs.to_forget_gates[0]
    del linear.weight, linear.bias
    linear.weight, linear.bias = scheme.weight_LHW[inputs.layer], scheme.bias_LH[inputs.layer]
    return torch.nn.functional.scaled_dot_product_attention(
        inputs.q_BHTD, inputs.k_BHSD, v, attn_mask=theirs(inputs.x_BSW) + causal(TOKENS)
    )


def products(scheme: FoX, inputs: AttentionInputs, v: Tensor) -> Tensor:
    """Equation 4: the weight of a key is multiplied by the gate of every later token."""
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            gate_S = 1 / (
                1
                + torch.exp(
                    -(inputs.x_BSW[b] @ scheme.weight_LHW[inputs.layer, h] + scheme.bias_LH[inputs.layer, h])
                )
            )
            for i in range(TOKENS):
                weight = torch.stack(
                    [
                        gate_S[j + 1 : i + 1].prod()
                        * torch.exp(
                            inputs.q_BHTD[b, h, i] @ inputs.k_BHSD[b, h, j] / math.sqrt(SHAPE.head_dim)
                        )
                        for j in range(i + 1)
                    ]
                )
                rows.append(weight @ v[b, h, : i + 1] / weight.sum())
    return torch.stack(rows).view(2, SHAPE.n_heads, TOKENS, SHAPE.head_dim)


@pytest.mark.parametrize("reference", [x_transformers, products])
def test_attention_equals(reference) -> None:  # type: ignore[no-untyped-def]
    scheme, inputs, v = fox(), attention_inputs(TOKENS, 1), values(TOKENS)
    mine, expected = attention(scheme, inputs, v), reference(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(
        mine, expected, [scheme.weight_LHW, scheme.bias_LH, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12
    )


def test_gates_start_at_a_half_or_at_the_given_decay_times() -> None:
    assert not FoX(SHAPE).bias_LH.any()
    bias_LH = FoX(SHAPE, decay_times=[2, 128]).bias_LH.detach().double()
    time_LH = -1 / torch.nn.functional.logsigmoid(bias_LH)
    expected_H = torch.tensor(
        [2, 8, 32, 128], dtype=torch.float64
    )  # four heads, each with four times the decay time of the one before
    torch.testing.assert_close(time_LH, expected_H.expand(2, 4), rtol=1e-5, atol=0)


@pytest.mark.parametrize("times", [[0, 8], [8, 2], [4], [1, float("inf")], [1, 2, 3], ["a", 2]])
def test_bad_settings(times: list) -> None:
    with pytest.raises(ConfigError, match=r"decay_times .* give two numbers of tokens, at least 0.05"):
        FoX(SHAPE, times)
