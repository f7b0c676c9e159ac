"""The configurations named after released models against transformers' models, layer by layer, on random weights.

Each model of transformers runs as a whole, so that its own configuration decides which layer has which window and
rotation. Our attention gets the queries, keys and values of each layer as they are before the rotation. Tolerance
1e-5: theirs rotates in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from calls import SHAPE, attention, attention_inputs
from torch import Tensor, nn
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    Gemma4TextConfig,
    Gemma4TextModel,
    GptOssConfig,
    GptOssModel,
    Llama4TextConfig,
    Llama4TextModel,
    Olmo3Config,
    Olmo3Model,
    Qwen3NextConfig,
    Qwen3NextModel,
    SmolLM3Config,
    SmolLM3Model,
)

from posbench.errors import ConfigError
from posbench.instantiate import instantiate
from posbench.position.compose import Stack
from posbench.position.scheme import PositionScheme
from posbench.schemes.gated_attention import GatedAttention
from posbench.schemes.learned_sink import LearnedSink
from posbench.schemes.local_global import LocalGlobal

CONFIGS = Path(__file__).parents[2] / "configs" / "scheme"
HEADS, TOKENS, LAYERS, WINDOW = SHAPE.n_heads, 30, 12, 10
DEEP = replace(SHAPE, n_layers=LAYERS, train_len=16)
COMMON = {
    "vocab_size": 50,
    "hidden_size": SHAPE.d_model,
    "intermediate_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": SHAPE.head_dim,
    "pad_token_id": None,
    "attn_implementation": "eager",
    "initializer_range": 0.3,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "gemma3": lambda: Gemma3TextModel(
        Gemma3TextConfig(**COMMON, sliding_window=WINDOW, query_pre_attn_scalar=SHAPE.head_dim)
    ),
    "gemma4": lambda: Gemma4TextModel(
        Gemma4TextConfig(
            **COMMON,
            sliding_window=WINDOW,
            global_head_dim=SHAPE.head_dim,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=50,
        )
    ),
    "gpt_oss": lambda: GptOssModel(
        GptOssConfig(
            **COMMON,
            **EXPERTS,
            sliding_window=WINDOW,
            rope_parameters={"rope_type": "default", "rope_theta": 150000.0},
        )
    ),
    "llama4": lambda: Llama4TextModel(
        Llama4TextConfig(
            **COMMON,
            **EXPERTS,
            intermediate_size_mlp=16,
            use_qk_norm=False,
            attention_chunk_size=16,
            floor_scale=16,
            attn_scale=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        )
    ),
    "olmo3": lambda: Olmo3Model(Olmo3Config(**COMMON, sliding_window=WINDOW)),
    "qwen3_next": lambda: Qwen3NextModel(
        Qwen3NextConfig(
            **COMMON,
            layer_types=["full_attention"] * LAYERS,
            num_experts=0,
            mlp_only_layers=list(range(LAYERS)),
            rope_parameters={"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
        )
    ),
    "smollm3": lambda: SmolLM3Model(SmolLM3Config(**COMMON)),
}


def scheme_of(name: str) -> PositionScheme:
    """Returns the scheme of a configuration, rotated in halves as transformers' models are, except Llama 4."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            new = {"window": WINDOW, "interleaved": name == "llama4"}
            return {key: new.get(key, changed(inner)) for key, inner in value.items()}
        return value

    build = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["build"]
    return instantiate(changed(build), PositionScheme, DEEP)


def by_head(x: Tensor) -> Tensor:
    """Returns (B, H, T, D) from (B, T, H * D), (B, T, H, D) or (B, H, T, D)."""
    x = x if x.dim() == 4 else x.unflatten(-1, (HEADS, -1))
    return x if x.shape[1] == HEADS else x.transpose(1, 2)


def recorded(model: nn.Module, ids_BT: Tensor) -> list[dict[str, Tensor]]:
    """Returns for each layer its input, queries, keys and values before the rotation, and the output of attention."""
    layers: list[dict[str, Tensor]] = []
    for block in model.layers:
        found: dict[str, Tensor] = {}
        layers.append(found)
        own = block.self_attn

        def keep(name: str, found: dict[str, Tensor] = found) -> Callable[..., None]:
            return lambda module, inputs, output: found.update({name: output.detach()})

        for part in "qkv":
            normed = getattr(own, f"{part}_norm", None)
            (normed if isinstance(normed, nn.Module) else getattr(own, f"{part}_proj")).register_forward_hook(
                keep(part)
            )
        own.o_proj.register_forward_pre_hook(lambda module, inputs, found=found: found.update(out=inputs[0]))
        own.q_proj.register_forward_pre_hook(lambda module, inputs, found=found: found.update(x=inputs[0]))
    with torch.no_grad():
        model(input_ids=ids_BT, use_cache=False)
    return layers


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_equals_transformers(name: str) -> None:
    torch.manual_seed(0)
    model, scheme = MODELS[name]().eval(), scheme_of(name)
    layers = recorded(model, torch.randint(50, (2, TOKENS)))
    assert len(layers) == LAYERS
    for layer, found in enumerate(layers):
        own = model.layers[layer].self_attn
        q = found["q"]
        if name == "gemma4":  # its logits are not divided by sqrt(D)
            q = q * SHAPE.head_dim**0.5
        with torch.no_grad():
            if isinstance(scheme, LearnedSink):
                scheme.sink_LH[layer] = own.sinks
            if isinstance(scheme, GatedAttention):
                scheme.weight_LGW[layer] = own.q_proj.weight.unflatten(0, (HEADS, 2, -1))[:, 1].flatten(0, 1)
        inputs = replace(
            attention_inputs(TOKENS, layer, torch.float32), q_BHTD=by_head(q), k_BHSD=by_head(found["k"])
        )
        mine = scheme.attention_output(attention(scheme, inputs, by_head(found["v"])), found["x"], layer)
        torch.testing.assert_close(
            mine.transpose(1, 2).flatten(-2), found["out"].flatten(2), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", ["gemma3", "gemma4", "gpt_oss", "olmo3"])
def test_one_layer_of_each_n_attends_globally(name: str) -> None:
    whole = scheme_of(name)
    hybrid = whole.members[0] if isinstance(whole, Stack) else whole
    n = {"gemma3": 6, "gemma4": 6, "gpt_oss": 2, "olmo3": 4}[name]
    for layer in range(LAYERS):
        assert (hybrid.mask(attention_inputs(TOKENS, layer)) is None) == ((layer + 1) % n == 0)
    assert hybrid.mask(attention_inputs(WINDOW, 0)) is None


@pytest.mark.parametrize(
    ("train_len", "windows_per_train_len", "window"),
    [(1024, 32, 32), (1024, 2, 512), (128, 32, 8), (4, 32, 4)],
)
def test_default_window(train_len: int, windows_per_train_len: int, window: int) -> None:
    rope = {"_target_": "posbench.schemes.rope.RoPE"}
    scheme = LocalGlobal(
        replace(DEEP, train_len=train_len), rope, rope, windows_per_train_len=windows_per_train_len
    )
    assert scheme.window == window


@pytest.mark.parametrize(
    "setting",
    [{"window": 0}, {"window": 17}, {"sliding_window_pattern": 1}, {"windows_per_train_len": 0}],
)
def test_bad_settings(setting: dict) -> None:
    rope = {"_target_": "posbench.schemes.rope.RoPE"}
    with pytest.raises(ConfigError, match="give"):
        LocalGlobal(DEEP, rope, rope, **setting)
