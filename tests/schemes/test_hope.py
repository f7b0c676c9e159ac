"""HoPE against complex products pair by pair, written from the paper's definition. Tolerance 1e-12 in float64."""

import cmath
import math
from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention_inputs, logits

from posbench.errors import ConfigError
from posbench.schemes.hope import HoPE
from posbench.schemes.rope import RoPE


@pytest.mark.parametrize("train_len", [16, 100, 10**6])
def test_logits_equal_the_sum_over_pairs(train_len: int) -> None:
    """Pairs that complete a period within the training length are rotated, the others are not."""
    inputs = attention_inputs(12)
    q, k = (
        torch.view_as_complex(x.detach().unflatten(-1, (-1, 2)).contiguous())
        for x in (inputs.q_BHTD, inputs.k_BHSD)
    )
    mine = logits(HoPE(replace(SHAPE, train_len=train_len)), inputs).detach()
    for i in range(12):
        for j in range(i + 1):
            total = torch.zeros(2, SHAPE.n_heads, dtype=torch.float64)
            for m in range(4):
                theta = 10000 ** (-m / 4)
                periods = theta * train_len / (2 * math.pi)
                angle = cmath.exp(1j * (i - j) * theta) if periods >= 1 else 1
                total += (q[:, :, i, m] * k[:, :, j, m].conj() * angle).real
            torch.testing.assert_close(
                mine[:, :, i, j], total / math.sqrt(SHAPE.head_dim), rtol=0, atol=1e-12
            )


def test_with_a_long_training_length_it_is_rope() -> None:
    inputs = attention_inputs()
    for mine, rope in zip(
        HoPE(replace(SHAPE, train_len=10**6)).qk(inputs), RoPE(SHAPE).qk(inputs), strict=True
    ):
        assert torch.equal(mine, rope)


def test_frequencies_can_be_extended_from_two_on() -> None:
    assert "inv_freq" not in HoPE(SHAPE).traits.capabilities
    assert "inv_freq" in HoPE(replace(SHAPE, train_len=100)).traits.capabilities


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="at least 7 tokens"):
        HoPE(replace(SHAPE, train_len=6))
