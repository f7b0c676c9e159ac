"""Randomized positions against their base schemes at the drawn positions, and order statistics. Tolerance 1e-12.

Ruoss et al. publish JAX code only, which draws a sorted uniform subset; the draws are tested for that.
"""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, values

from posbench.errors import ConfigError, LengthError
from posbench.position.geometry import Geometry
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.randomized import Randomized
from posbench.schemes.rope import RoPE
from posbench.schemes.sinusoidal import Sinusoidal

BASE_SCHEMES = {
    "rope": {"_target_": "posbench.schemes.rope.RoPE"},
    "alibi": {"_target_": "posbench.schemes.alibi.ALiBi"},
    "sinusoidal": {"_target_": "posbench.schemes.sinusoidal.Sinusoidal"},
    "learned": {"_target_": "posbench.schemes.learned.Learned"},
}


def randomized(base_scheme: str, max_position: int | None = None) -> Randomized:
    torch.manual_seed(0)
    return Randomized(SHAPE, BASE_SCHEMES[base_scheme], max_position).double()


def test_draws_are_sorted_uniform_subsets() -> None:
    """The means of all order statistics are (r + 1)(M + 1) / (n + 1) - 1, within five standard errors."""
    scheme = randomized("rope", 50)
    drawn = torch.stack([scheme.draw(10) for _ in range(4000)])
    assert (drawn.diff(dim=1) > 0).all()
    assert (drawn.min(), drawn.max()) == (0, 49)
    expected = torch.arange(1, 11) * 51 / 11 - 1
    error = drawn.double().std(0) / 4000**0.5
    assert ((drawn.double().mean(0) - expected).abs() < 5 * error).all()


def test_training_draws_from_the_global_generator() -> None:
    scheme, geo = randomized("rope").train(), Geometry.from_range(0, 16)
    torch.manual_seed(3)
    one, two = scheme.assign_positions(geo).q_pos_T, scheme.assign_positions(geo).q_pos_T
    torch.manual_seed(3)
    assert torch.equal(scheme.assign_positions(geo).q_pos_T, one)
    assert not torch.equal(one, two)


def test_evaluation_draws_once_and_leaves_the_generator_alone() -> None:
    scheme = randomized("rope").eval()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, again = (scheme.assign_positions(Geometry.from_range(0, 40)).q_pos_T for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, again)
    # A suffix, and the prefix of a text whose length is declared, have the positions of the whole text.
    suffix = scheme.assign_positions(Geometry.from_range(30, 35, length=40))
    assert torch.equal(suffix.q_pos_T, one[30:35])
    assert torch.equal(suffix.k_pos_S, one[:35])


def test_starts_in_evaluation_mode() -> None:
    assert not Randomized(SHAPE, BASE_SCHEMES["rope"]).training


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("base_scheme", "plain"), [("rope", RoPE), ("alibi", ALiBi)])
def test_attention_is_that_of_the_scheme_at_those_positions(
    base_scheme: str, plain: type, training: bool
) -> None:
    scheme, inputs, v = randomized(base_scheme).train(training), attention_inputs(), values()
    drawn_geo = scheme.assign_positions(inputs.geo)
    pos = drawn_geo.q_pos_T
    # The base scheme on a text of all positions, of which only the drawn ones are visible.
    last = int(pos[-1]) + 1
    q, k, wide_v = (
        torch.zeros(2, 4, last, 8).double().index_copy(2, pos, x) for x in (inputs.q_BHTD, inputs.k_BHSD, v)
    )
    wide = replace(inputs, geo=Geometry.from_range(0, last), q_BHTD=q, k_BHSD=k)
    inner = plain(SHAPE)
    inner_q, inner_k = inner.qk(wide)
    scores = inner_q @ inner_k.transpose(-1, -2) * SHAPE.head_dim**-0.5
    bias = inner.attention_bias(wide)
    if bias is not None:
        scores = scores + bias.value(wide.geo, slice(None))
    chosen = torch.zeros(last, dtype=torch.bool).index_fill(0, pos, True)
    scores = scores.masked_fill(~(wide.geo.visible() & chosen), -torch.inf)
    expected = (scores.softmax(-1) @ wide_v)[:, :, pos]
    mine = attention(scheme, replace(inputs, geo=drawn_geo), v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_embeddings_are_those_of_the_drawn_positions() -> None:
    x_BTW, geo = torch.randn(1, 20, SHAPE.d_model, dtype=torch.float64), Geometry.from_range(0, 20)
    sinusoidal, learned = randomized("sinusoidal"), randomized("learned", 100)
    pos = sinusoidal.assign_positions(geo).q_pos_T
    added = sinusoidal.embed(x_BTW, sinusoidal.assign_positions(geo), 0) - x_BTW
    torch.testing.assert_close(added[0], Sinusoidal(SHAPE).table(pos), rtol=0, atol=1e-12)
    pos = learned.assign_positions(geo).q_pos_T
    (table,) = learned.parameters()
    assert table.shape == (100, SHAPE.d_model)
    torch.testing.assert_close(
        learned.embed(x_BTW, learned.assign_positions(geo), 0) - x_BTW, table[pos][None], rtol=0, atol=1e-12
    )


def test_a_range_of_the_training_length_leaves_positions_unchanged() -> None:
    scheme = randomized("learned", SHAPE.train_len).train()
    geo = Geometry.from_range(0, SHAPE.train_len)
    assert torch.equal(scheme.assign_positions(geo).q_pos_T, geo.q_pos_T)
    assert isinstance(scheme.members[0], Learned)


def test_bad_settings_and_lengths() -> None:
    with pytest.raises(ConfigError, match="max_position 15: give at least the training length, 16"):
        randomized("rope", 15)
    scheme = randomized("rope", 20)
    scheme.check(20)
    with pytest.raises(LengthError, match="evaluate at most 20 tokens"):
        scheme.check(21)
