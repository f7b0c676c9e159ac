"""DAPE and DAPE V2 against torch modules applied as in the authors' code. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.position.scheme import AttentionInputs
from posbench.schemes.dape import DAPE
from posbench.schemes.kerple_log import KerpleLog
from posbench.schemes.nope import NoPE

TOKENS, HIDDEN = 12, 7


def authors(scheme: DAPE, inputs: AttentionInputs, v: Tensor, kernel: int) -> Tensor:
    """x + bias + f([x, bias]) on the keys that a query sees, one query at a time."""
    layer, base = inputs.layer, scheme.members[0]
    module: type[nn.Module] = nn.Linear if kernel == 1 else nn.Conv1d
    size = () if kernel == 1 else (kernel,)
    padding = {} if kernel == 1 else {"padding": kernel // 2}
    f = nn.Sequential(
        module(2 * SHAPE.n_heads, HIDDEN, *size, **padding),
        nn.LeakyReLU(),
        module(HIDDEN, SHAPE.n_heads, *size, **padding),
    )
    for part, weight, bias in (
        (f[0], scheme.in_LKCN[layer], scheme.in_LK[layer]),
        (f[2], scheme.out_LHKN[layer], scheme.out_LH[layer]),
    ):
        del part.weight, part.bias
        part.weight, part.bias = weight.squeeze(-1) if kernel == 1 else weight, bias
    rows = []
    for i in range(TOKENS):
        x = torch.einsum("bhd,bhsd->bhs", inputs.q_BHTD[:, :, i], inputs.k_BHSD[:, :, : i + 1]) / math.sqrt(
            SHAPE.head_dim
        )
        bias = torch.stack([-base.p_H * torch.log(1 + base.a_H * (i - j)) for j in range(i + 1)], -1).expand(
            2, -1, -1
        )
        both = torch.cat((x, bias), 1)
        adapted = f(both.transpose(1, 2)).transpose(1, 2) if kernel == 1 else f(both)
        rows.append(torch.einsum("bhs,bhsd->bhd", (x + bias + adapted).softmax(-1), v[:, :, : i + 1]))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_attention_equals_the_modules(kernel: int) -> None:
    torch.manual_seed(0)
    scheme = DAPE(SHAPE, KerpleLog(SHAPE), HIDDEN, kernel).double()
    with torch.no_grad():
        for member in scheme.members[0].parameters():
            member.add_(0.1)
    inputs, v = attention_inputs(TOKENS, 1), values(TOKENS)
    mine, expected = attention(scheme, inputs, v), authors(scheme, inputs, v, kernel)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    leaves = [
        *scheme.members.parameters(),
        scheme.in_LKCN,
        scheme.in_LK,
        scheme.out_LHKN,
        inputs.q_BHTD,
        inputs.k_BHSD,
        v,
    ]
    assert_same_gradients(mine, expected, leaves, 1e-12)


def test_a_kernel_of_one_can_be_merged_over_regions() -> None:
    base = KerpleLog(SHAPE)
    assert DAPE(SHAPE, base).traits.lse_mergeable
    assert not DAPE(SHAPE, base, kernel_size=3).traits.lse_mergeable
    assert DAPE(SHAPE, base).traits.capabilities == base.traits.capabilities


@pytest.mark.parametrize(("hidden", "kernel"), [(0, 1), (32, 0), (32, 2), (32, -1)])
def test_bad_settings(hidden: int, kernel: int) -> None:
    with pytest.raises(ConfigError, match="odd number of keys"):
        DAPE(SHAPE, KerpleLog(SHAPE), hidden, kernel)


def test_a_scheme_without_a_bias_is_refused() -> None:
    with pytest.raises(IncompatibleError, match=r"NoPE has none: give it one that has$"):
        DAPE(SHAPE, NoPE(SHAPE)).attention_bias(attention_inputs())
