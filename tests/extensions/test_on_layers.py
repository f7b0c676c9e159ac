"""An extension on some layers against the extension on all, the scheme alone, and OLMo 3 (1e-5: it rotates in float32)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from extended import SHAPE, Llama, attention, attention_inputs, context, values
from torch import Tensor
from transformers import Olmo3Config
from transformers.models.olmo3.modeling_olmo3 import Olmo3RotaryEmbedding, apply_rotary_pos_emb

from posbench.config.schema import ExtensionSettings
from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size
from posbench.position.compose import Layered, Stack
from posbench.position.extension import Extension
from posbench.position.on_layers import OnLayers, is_windowed
from posbench.position.scheme import PositionScheme
from posbench.schemes.randomized import Randomized
from posbench.schemes.window import Window

TOKENS, SIZE = 48, Size(n_layers=2, d_model=16, n_heads=2)
EXTENSIONS = {
    "pi": {"_target_": "posbench.extensions.pi.PositionInterpolation"},
    "yarn": {"_target_": "posbench.extensions.yarn.YaRN"},
    "rerope": {"_target_": "posbench.extensions.rerope.ReRoPE"},
    "chunked": {"_target_": "posbench.extensions.chunked.Chunked"},
    "streaming_llm": {"_target_": "posbench.extensions.streaming_llm.StreamingLLM"},
}


def hidden(scheme: PositionScheme, wrap: Any) -> Tensor:
    model = GPT(SIZE, 30, scheme, 0).double().eval()
    ids = torch.randint(30, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.with_scheme(wrap(model.scheme))(ids, kernel=KernelDispatcher("dense"))[0]


@pytest.mark.parametrize("name", EXTENSIONS)
def test_all_layers_are_the_extension_and_no_layers_are_the_scheme(name: str) -> None:
    def on(*layers: int) -> Tensor:
        return hidden(Llama(SHAPE), lambda inner: OnLayers(inner, context(TOKENS), EXTENSIONS[name], layers))

    whole = hidden(
        Llama(SHAPE), lambda inner: instantiate(EXTENSIONS[name], Extension, inner, context(TOKENS))
    )
    torch.testing.assert_close(on(0, 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(on(), hidden(Llama(SHAPE), lambda inner: inner), rtol=0, atol=0)
    first, second = on(0), on(1)
    assert (
        min((one - other).abs().max() for one, other in ((first, second), (first, whole), (second, whole)))
        > 1e-6
    )


def test_interpolation_on_one_layer_is_a_lower_frequency_there() -> None:
    """Positions are those of the whole model: an extension that moves them must move those of its layers alone."""
    slow = type("Slow", (Llama.func,), {"qk": lambda self, inputs: super(slow, self).qk(divided(inputs))})

    def divided(inputs: Any) -> Any:
        return replace(inputs, inv_freq_transforms=(lambda inv_freq_M: inv_freq_M / 3,))

    layered = Layered(SHAPE, [Llama(SHAPE), slow(SHAPE, interleaved=False)])
    mine = hidden(Llama(SHAPE), lambda inner: OnLayers(inner, context(TOKENS), EXTENSIONS["pi"], [1]))
    torch.testing.assert_close(mine, hidden(layered, lambda inner: inner), rtol=0, atol=1e-12)


def test_full_layers_equal_olmo_3() -> None:
    """OLMo 3 scales its full-attention layers by YaRN and leaves those with a window as they were."""
    config = Olmo3Config(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=TOKENS,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 3.0,
                "original_max_position_embeddings": SHAPE.train_len,
            },
        },
    )
    rotations = Olmo3RotaryEmbedding(config)
    windowed = Stack(SHAPE, [Llama(SHAPE), Window(SHAPE, 8)])
    scheme = OnLayers(Layered(SHAPE, [windowed, Llama(SHAPE)]), context(TOKENS), EXTENSIONS["yarn"], "full")
    assert scheme.layers == {1}
    for layer, kind in enumerate(config.layer_types):
        inputs, v = replace(attention_inputs(TOKENS), layer=layer), values(TOKENS)
        cos, sin = rotations(inputs.q_BHTD, torch.arange(TOKENS)[None], kind)
        q, k = apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
        visible = torch.ones(TOKENS, TOKENS).tril().bool()
        if kind == "sliding_attention":
            visible &= ~torch.ones(TOKENS, TOKENS).tril(-8).bool()
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, visible)
        torch.testing.assert_close(attention(scheme, inputs, v), expected, rtol=0, atol=1e-5)


def test_windowed_layers_are_the_others() -> None:
    windowed = Stack(SHAPE, [Llama(SHAPE), Window(SHAPE, 8)])
    inner = Layered(SHAPE, [windowed, Llama(SHAPE)])
    assert OnLayers(inner, context(TOKENS), EXTENSIONS["yarn"], "windowed").layers == {0}


def test_a_model_with_a_window_in_every_layer() -> None:
    """Fault: refused, because of requirements that no extension of a rotation has."""
    inner = Stack(SHAPE, [Llama(SHAPE), Window(SHAPE, 8)])
    for layers in ("windowed", [0]):
        assert 0 in OnLayers(inner, context(TOKENS), EXTENSIONS["yarn"], layers).layers
    with pytest.raises(IncompatibleError, match="unbounded context"):
        OnLayers(inner, context(TOKENS), {"_target_": "posbench.extensions.window.Window", "window": 4}, [0])


def test_layers_of_a_scheme_with_random_positions() -> None:
    """Fault: an IndexError where the text is longer than the positions to draw from."""
    rotation = {"_target_": "posbench.schemes.rope.RoPE"}
    inner = Randomized(SHAPE, rotation, max_position=SHAPE.train_len)
    assert is_windowed(inner, context(TOKENS), 0) is False


@pytest.mark.parametrize("layers", [[2], [-1], [0, 0]])
def test_indices_out_of_range(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"extension.layers .*: give distinct indices from 0 to 1"):
        OnLayers(Llama(SHAPE), context(TOKENS), EXTENSIONS["yarn"], layers)


def test_a_kind_of_layer_that_a_scheme_lacks() -> None:
    with pytest.raises(IncompatibleError, match="RoPE has no windowed layer"):
        OnLayers(Llama(SHAPE), context(TOKENS), EXTENSIONS["yarn"], "windowed")


def test_the_setting_renames_the_extension_and_its_identity() -> None:
    """Two variants of one extension must not have one label."""
    build = {"_target_": "posbench.extensions.yarn.YaRN"}
    plain, full, listed = (
        ExtensionSettings("yarn", dict(build), layers=layers) for layers in ("all", "full", [0, 2])
    )
    assert (plain.name, full.name, listed.name) == ("yarn", "yarn_full", "yarn_0_2")
    assert plain.build == build
    assert ExtensionSettings(**vars(full)) == full
    # Fault: [] changed nothing under the label yarn_, and the name of many layers was refused as too long.
    assert ExtensionSettings("yarn", dict(build), layers=[*range(24), 30, 31]).name == "yarn_0-23_30_31"
    with pytest.raises(ConfigError, match=r"extension.layers \[\]: give all, full, windowed or a list"):
        ExtensionSettings("yarn", dict(build), layers=[])
    with pytest.raises(ConfigError, match=r"extension.layers 'fll': give all, full, windowed or a list"):
        ExtensionSettings("yarn", dict(build), layers="fll")
    with pytest.raises(ConfigError, match="without an extension"):
        ExtensionSettings(layers="full")
