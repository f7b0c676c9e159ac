"""Compositions of schemes against their members. Tolerance 1e-12 in float64."""

from dataclasses import replace

import pytest
import torch
from calls import SHAPE, attention, attention_inputs, logits, values

from posbench.errors import ConfigError, IncompatibleError, UndefinedError
from posbench.instantiate import instantiate
from posbench.position.compose import Layered, Stack
from posbench.position.geometry import Geometry, Region
from posbench.position.hybrid import every_nth
from posbench.position.local_attention import sliding_window, tokens_within_train_len
from posbench.position.scheme import AttentionInputs, PositionScheme, Traits
from posbench.schemes.alibi import ALiBi
from posbench.schemes.learned import Learned
from posbench.schemes.nope import NoPE
from posbench.schemes.rope import RoPE
from posbench.schemes.shaw import Shaw
from posbench.schemes.sinusoidal import Sinusoidal

ROPE = {"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 500.0}
EXACT = {"rtol": 0, "atol": 1e-12}


def test_a_stack_of_one_equals_its_member() -> None:
    inputs, v = attention_inputs(), values()
    assert torch.equal(attention(Stack(SHAPE, [ROPE]), inputs, v), attention(RoPE(SHAPE, 500.0), inputs, v))


def test_rotations_and_biases_combine() -> None:
    inputs = attention_inputs()
    stack = Stack(SHAPE, [RoPE(SHAPE), ALiBi(SHAPE), ALiBi(SHAPE)])
    bias = logits(ALiBi(SHAPE), inputs) - logits(NoPE(SHAPE), inputs)
    expected = logits(RoPE(SHAPE), inputs) + 2 * bias
    visible = inputs.geo.visible()
    torch.testing.assert_close(logits(stack, inputs)[..., visible], expected[..., visible], **EXACT)


def test_embeddings_apply_in_order() -> None:
    geo, x_BTW = Geometry.from_range(0, 8), torch.randn(1, 8, SHAPE.d_model, dtype=torch.float64)
    sinusoidal, learned = Sinusoidal(SHAPE), Learned(SHAPE).double()
    both = Stack(SHAPE, [sinusoidal, learned]).embed(x_BTW, geo, 0)
    torch.testing.assert_close(both, learned.embed(sinusoidal.embed(x_BTW, geo, 0), geo, 0), **EXACT)


def test_traits_and_checks_combine() -> None:
    traits = Stack(SHAPE, [RoPE(SHAPE), Learned(SHAPE, "interpolate")]).traits
    assert traits == Traits(
        relative=False, prefix_stable=False, capabilities=frozenset({"positions", "inv_freq"})
    )
    with pytest.raises(UndefinedError):
        Stack(SHAPE, [RoPE(SHAPE), Learned(SHAPE)]).check(SHAPE.train_len + 1)


def test_two_members_with_relative_values_are_refused() -> None:
    stack = Stack(SHAPE, [Shaw(SHAPE), Shaw(SHAPE)])
    with pytest.raises(IncompatibleError, match="2 stacked schemes define relative_values"):
        stack.relative_values(attention_inputs())


def test_layers_alternate() -> None:
    inputs, v = attention_inputs(), values()
    layered = Layered(SHAPE, [ROPE, NoPE(SHAPE), ALiBi(SHAPE)])
    for layer, scheme in enumerate((RoPE(SHAPE, 500.0), NoPE(SHAPE), ALiBi(SHAPE), RoPE(SHAPE, 500.0))):
        here = replace(inputs, layer=layer)
        assert torch.equal(attention(layered, here, v), attention(scheme, here, v))


def test_layers_can_be_listed() -> None:
    inputs, v = attention_inputs(), values()
    layered = Layered(replace(SHAPE, n_layers=3), [NoPE(SHAPE), ALiBi(SHAPE)], layers=[0, 0, 1])
    for layer, scheme in enumerate((NoPE(SHAPE), NoPE(SHAPE), ALiBi(SHAPE))):
        here = replace(inputs, layer=layer)
        assert torch.equal(attention(layered, here, v), attention(scheme, here, v))


@pytest.mark.parametrize("layers", [[0], [0, 1, 0], [0, 2], [-1, 0]])
def test_a_bad_list_of_layers_is_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="give each of the 2 layers a number from 0 to 1"):
        Layered(SHAPE, [NoPE(SHAPE), ALiBi(SHAPE)], layers=layers)


def test_every_nth_layer_or_the_last() -> None:
    assert every_nth(8, 4) == [0, 0, 0, 1, 0, 0, 0, 1]
    assert every_nth(3, 2) == [0, 1, 0]
    assert every_nth(3, 4) == [0, 0, 1]
    for layers, n in ((8, 1), (8, 0), (1, 2)):
        with pytest.raises(ConfigError, match="at least 2 layers"):
            every_nth(layers, n)


def test_a_local_length_lies_within_the_training_length() -> None:
    assert (
        tokens_within_train_len(SHAPE, "window", None, 5, "a third of it"),
        tokens_within_train_len(SHAPE, "window", 16, 5, "a third of it"),
    ) == (5, 16)
    for tokens in (0, 17):
        with pytest.raises(
            ConfigError, match=f"window {tokens}: .* at most the training length, 16, or null for a third"
        ):
            tokens_within_train_len(SHAPE, "window", tokens, 5, "a third of it")


def test_a_window_includes_the_query_and_is_none_where_it_hides_nothing() -> None:
    inputs = attention_inputs(6)
    assert sliding_window(6, inputs) is None
    i = torch.arange(6)
    window = sliding_window(2, inputs)
    assert window is not None
    assert (window(i[:, None], i) & inputs.geo.visible()).sum(-1).tolist() == [1, 2, 2, 2, 2, 2]


RANDOMIZED = {"_target_": "posbench.schemes.randomized.Randomized", "base_scheme": ROPE}
LEARNED, SINUSOIDAL, ALIBI, LINEAR = (
    {"_target_": f"posbench.schemes.{name}"}
    for name in (
        "learned.Learned",
        "sinusoidal.Sinusoidal",
        "alibi.ALiBi",
        "linear_attention.LinearAttention",
    )
)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("scheme", "does"),
    [(RANDOMIZED, "assigns positions"), (LEARNED, "embeds tokens"), (SINUSOIDAL, "embeds tokens")],
)
def test_what_only_layer_0_can_do_is_refused_in_later_layers(scheme: dict, does: str, wrapped: bool) -> None:
    """Layered ignored the positions and input embeddings of members past layer 0 in silence."""
    if wrapped:
        scheme = {"_target_": "posbench.position.compose.Stack", "schemes": [ALIBI, scheme]}
    with pytest.raises(ConfigError, match=f"{does}.* stands in layer 1 first"):
        Layered(SHAPE, [ALIBI, scheme])
    layered = Layered(replace(SHAPE, n_layers=4), [scheme, ALIBI], [0, 1, 1, 0])
    assert [type(layered._at(layer)).__name__ for layer in (1, 2)] == ["ALiBi", "ALiBi"]


def test_embeddings_before_every_block_may_stand_in_any_layer() -> None:
    floater = {"_target_": "posbench.schemes.floater.Floater"}
    geo, x_BTW = Geometry.from_range(0, 4), torch.ones(1, 4, SHAPE.d_model)
    layered = Layered(SHAPE, [ALIBI, floater])
    assert not torch.equal(layered.embed(x_BTW, geo, 1), x_BTW)


def test_the_check_of_a_layered_scheme_draws_no_random_numbers() -> None:
    """Initial weights come after it from the same generator."""
    torch.manual_seed(0)
    Layered(SHAPE, [NoPE(SHAPE), ALiBi(SHAPE)])
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


def test_a_member_without_a_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="give each of its 2 schemes a layer"):
        Layered(SHAPE, [ALIBI, ROPE], layers=[0, 0])


@pytest.mark.parametrize("name", ["ssmax.SSMax", "key_norm.KeyNorm", "learned_sink.LearnedSink", "swan.SWAN"])
def test_hooks_that_linear_attention_would_ignore_are_refused(name: str) -> None:
    """SSMax around linear attention was linear attention: what replaces attention never calls the hooks of a wrapper."""
    settings = {"_target_": f"posbench.schemes.{name}", "base_scheme": LINEAR}
    with pytest.raises(ConfigError, match=r"around LinearAttention: .* would ignore"):
        instantiate(settings, PositionScheme, SHAPE)


def test_a_single_region_with_other_positions_survives_a_stack() -> None:
    """A stack dropped the geometry and the mask of a member with one region."""

    class Shifted(NoPE):
        def regions(self, inputs: AttentionInputs) -> list[Region]:
            geo = inputs.geo
            return [Region(geo.with_positions(geo.q_pos_T + 3, geo.k_pos_S))]

    inputs = attention_inputs()
    stack = Stack(SHAPE, [ALiBi(SHAPE), Shifted(SHAPE)])
    assert torch.equal(stack.regions(inputs)[0].geo.q_pos_T, inputs.geo.q_pos_T + 3)


def test_a_stack_draws_the_positions_of_its_members() -> None:
    """Fault: a scheme around random positions took extensions that hide keys by their positions."""
    stack = Stack(SHAPE, [RANDOMIZED, ALIBI])
    assert stack.traits.draws_positions
    assert "indices as positions" not in stack.traits.capabilities
