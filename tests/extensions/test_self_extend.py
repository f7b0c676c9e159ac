"""Self-Extend against loops over its formula and the two attentions of the authors' code. Tolerance 1e-12."""

import pytest
import torch
from extended import SHAPE, Llama, alibi, attention, attention_inputs, by_pairs, context, rotary, values

from posbench.errors import ConfigError, IncompatibleError
from posbench.extensions.self_extend import SelfExtend
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.shaw import Shaw
from posbench.schemes.t5 import T5Bias


def extended(i: int, j: int, window: int, group: int) -> int:
    """Section 3.2: grouped positions, those of queries shifted by w - w // G."""
    return i - j if i - j < window else i // group - j // group + window - window // group


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize("group", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("window", [1, 4, 5, 23, 24, 100])
def test_equals_its_formula(window: int, group: int, first: int) -> None:
    inputs, v = attention_inputs(24, start=first), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: rotary(q, k, extended(i, j, window, group)))
    actual = attention(SelfExtend(Llama(SHAPE), context(24), window, group), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "group"), [(5, 3), (8, 4)])
def test_equals_two_attentions_chosen_by_a_mask(window: int, group: int) -> None:
    """The authors' code: full matrices of neighbour and of grouped logits, the latter used beyond the window."""
    inputs, v = attention_inputs(24), values(24)
    index = torch.arange(24)

    def logits(q_pos: torch.Tensor, k_pos: torch.Tensor) -> torch.Tensor:
        here = type(inputs)(
            0,
            inputs.geo.with_positions(q_pos, k_pos),
            inputs.x_BTW,
            inputs.x_BSW,
            inputs.q_BHTD,
            inputs.k_BHSD,
        )
        q, k = Llama(SHAPE).qk(here)
        return q @ k.transpose(-1, -2) / 8**0.5

    neighbour = logits(index, index)
    grouped = logits(index // group + window - window // group, index // group)
    near = torch.ones(24, 24).tril()
    near[window:, :-window] -= torch.ones(24 - window, 24 - window).tril()
    chosen = torch.where(near.bool(), neighbour, grouped)
    chosen = chosen.masked_fill(~torch.ones(24, 24).tril().bool(), -torch.inf)
    actual = attention(SelfExtend(Llama(SHAPE), context(24), window, group), inputs, v)
    torch.testing.assert_close(actual, chosen.softmax(-1) @ v, rtol=0, atol=1e-12)


def test_biases_of_the_distance_are_grouped() -> None:
    inputs, v = attention_inputs(24), values(24)
    expected = by_pairs(inputs, v, lambda h, q, k, i, j: alibi(h, q, k, extended(i, j, 5, 3)))
    actual = attention(SelfExtend(ALiBi(SHAPE), context(24), 5, 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    t5 = T5Bias(SHAPE, num_buckets=8, max_distance=9).double()
    bias = t5.bias(torch.arange(24)).tolist()
    expected = by_pairs(
        inputs, v, lambda h, q, k, i, j: float(q @ k) / 8**0.5 + bias[h][extended(i, j, 5, 3)]
    )
    torch.testing.assert_close(
        attention(SelfExtend(t5, context(24), 5, 3), inputs, v), expected, rtol=0, atol=1e-12
    )


def test_relative_values_are_grouped() -> None:
    torch.manual_seed(0)
    inner, inputs, v = Shaw(SHAPE, max_relative_position=9).double(), attention_inputs(20), values(20)
    key, value = inner.key_LKD[0], inner.value_LKD[0]
    with torch.no_grad():
        rows = torch.tensor(
            [[min(extended(i, j, 5, 3), 9) if j <= i else 0 for j in range(20)] for i in range(20)]
        )
        logits = (inputs.q_BHTD @ inputs.k_BHSD.transpose(-1, -2)) / 8**0.5
        logits = logits + torch.einsum("bhtd,tsd->bhts", inputs.q_BHTD, key[rows]) / 8**0.5
        weight = logits.masked_fill(~torch.ones(20, 20).tril().bool(), -torch.inf).softmax(-1)
        expected = weight @ v + torch.einsum("bhts,tsd->bhtd", weight, value[rows])
        actual = attention(SelfExtend(inner, context(20), 5, 3), inputs, v)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [16, 17, 40, 56, 64, 1000])
def test_auto_is_the_smallest_group_of_the_paper_s_rule(length: int) -> None:
    scheme = SelfExtend(Llama(SHAPE), context(length))
    assert scheme.window == 4
    group = scheme.group_size
    assert (16 - 4) * group + 4 >= length
    assert max(extended(length - 1, j, 4, group) for j in range(length)) <= 15
    assert group == 1 or max(extended(length - 1, j, 4, group - 1) for j in range(length)) > 15
    assert not scheme.traits.prefix_stable
    assert SelfExtend(Llama(SHAPE), context(length), group_size=2).traits.prefix_stable


def test_the_authors_example() -> None:
    """README of datamllab/LongLM: 15800 tokens, training length 4096, window 1024, group 5."""
    shape = type(SHAPE)(1, 1, 8, 8, 4096)
    assert SelfExtend(Llama(shape), context(15800, shape), 1024).group_size == 5


def test_bad_settings() -> None:
    for window in (0, -1, 0.5):
        with pytest.raises(ConfigError, match="whole number of tokens of at least 1"):
            SelfExtend(Llama(SHAPE), context(64), window)  # type: ignore[arg-type]
    for group in (0, -2, 2.5, "double"):
        with pytest.raises(ConfigError, match=r"group_size .* at least 1, or auto"):
            SelfExtend(Llama(SHAPE), context(64), 4, group)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at most 15, or a group_size"):
        SelfExtend(Llama(SHAPE), context(64), 16)
    with pytest.raises(IncompatibleError, match="needs a scheme with positions"):
        SelfExtend(NoPE(SHAPE), context(64))
    with pytest.raises(IncompatibleError, match="depends on absolute positions"):
        SelfExtend(Learned(SHAPE), context(64))
