"""Converted models against transformers: logits in float32 within 1e-4, and greedy tokens."""

import contextlib
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pretrained_models import BEFORE, FAMILIES, SCALINGS, TRAIN_LEN, VOCABULARY, hf_model

from posbench.errors import ConfigError, DataError, IncompatibleError
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.hf_families import architecture_from_hf_config
from posbench.lm.hf_positions import pretraining_len, scheme_settings
from posbench.lm.hf_rope_scaling import scaling_settings
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.lm.hugging_face import HFLM
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme

EXTENSIONS = sorted((Path(__file__).parents[2] / "configs" / "extension").glob("*.yaml"))

LONG = 3 * TRAIN_LEN


def ours(model: torch.nn.Module) -> GPT:
    own = architecture_from_hf_config(model.config)
    positions = instantiate(
        scheme_settings(model.config, TRAIN_LEN), PositionScheme, own.shape(pretraining_len(model.config))
    )
    return from_hf_state_dict(dict(model.state_dict()), own, positions, "it", model.config.model_type)


def around(made: GPT, model: torch.nn.Module, length: int) -> PositionScheme:
    """The scheme of a converted model with the RoPE scaling of its configuration, for a length."""
    settings = scaling_settings(model.config)
    shape = architecture_from_hf_config(model.config).shape(pretraining_len(model.config))
    return (
        made.scheme
        if settings is None
        else instantiate(settings, Extension, made.scheme, ExtensionContext(shape, length))
    )


def logits(made: GPT, model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden, _ = made.with_scheme(around(made, model, ids.shape[1]))(ids, length=ids.shape[1])
        return made.head(hidden)


def check(model: torch.nn.Module, lengths: tuple[int, ...]) -> None:
    made = ours(model)
    generator = torch.Generator().manual_seed(1)
    for length in lengths:
        ids = torch.randint(VOCABULARY, (2, length), generator=generator)
        with torch.no_grad():
            expected = model(ids).logits
        found = logits(made, model, ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert expected.std() > 0.1, "logits vary enough to be compared"
        # Greedy generation by both models.
        greedy = model.generate(
            ids[:1], do_sample=False, max_new_tokens=4, min_new_tokens=4, use_cache=False, pad_token_id=0
        )
        sequence = ids[:1]
        for _ in range(4):
            last = logits(made, model, sequence)[:, -1]
            last[:, model.config.eos_token_id] = -torch.inf  # the effect of min_new_tokens
            sequence = torch.cat((sequence, last.argmax(-1)[None]), 1)
        assert sequence.tolist() == greedy.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_equals_transformers(family: str) -> None:
    table = family.startswith("gpt2")  # ends at the training length
    check(hf_model(**FAMILIES[family]), (TRAIN_LEN - 5, TRAIN_LEN - 4 if table else LONG))


@pytest.mark.parametrize("kind", SCALINGS)
def test_rope_scaling_equals_transformers(kind: str) -> None:
    check(hf_model("llama", rope_parameters={"rope_theta": 500.0, **SCALINGS[kind]}), (TRAIN_LEN - 5, LONG))


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("qwen3", "yarn_all_parameters"),
        ("qwen2_window", "llama3"),
        ("mistral", "yarn"),
        ("smollm3", "linear"),
    ],
)
def test_family_with_rope_scaling_equals_transformers(family: str, kind: str) -> None:
    check(hf_model(**FAMILIES[family], rope_parameters={"rope_theta": 500.0, **SCALINGS[kind]}), (LONG,))


PLAIN = {"rope_type": "default", "rope_theta": 100.0}
TWO_FACTORS = {"short_factor": [1.0, 1.2], "long_factor": [1.0, 3.0]}


def scaled(kind: str, **given: object) -> dict[str, object]:
    return {"rope_theta": 500.0, **SCALINGS[kind], **given}


# Rope parameters for each family that has a form of its own, for all layers or by layer type.
FAMILY_SCALINGS: dict[str, tuple[str, dict[str, object]]] = {
    **{
        f"gemma3_full_{kind}": ("gemma3", {"full_attention": scaled(kind), "sliding_attention": PLAIN})
        for kind in SCALINGS
    },
    "gemma3_both": ("gemma3", {"full_attention": scaled("yarn"), "sliding_attention": scaled("linear")}),
    "gemma3_sliding": ("gemma3", {"full_attention": PLAIN, "sliding_attention": scaled("llama3")}),
    "olmo3_yarn": ("olmo3", {"full_attention": scaled("yarn"), "sliding_attention": PLAIN}),
    "olmo3_longrope": ("olmo3", {"full_attention": scaled("longrope"), "sliding_attention": PLAIN}),
    **{f"gpt_oss_{kind}": ("gpt_oss", scaled(kind)) for kind in SCALINGS},
    "gpt_oss_own": ("gpt_oss", scaled("yarn", truncate=False)),
    "phi3_longrope": ("phi3", scaled("longrope")),
    "phi3_longrope_attention_factor": ("phi3", scaled("longrope_attention_factor")),
    "phi4_mini": ("phi3_window", scaled("longrope", partial_rotary_factor=0.5, **TWO_FACTORS)),
    **{f"pythia_{kind}": ("pythia", scaled(kind)) for kind in SCALINGS if "longrope" not in kind},
    "pythia_longrope": ("pythia", scaled("longrope", **TWO_FACTORS)),
    "smollm3_yarn": ("smollm3", scaled("yarn")),
}


@pytest.mark.parametrize("name", FAMILY_SCALINGS)
def test_every_scaling_of_a_family_equals_transformers(name: str) -> None:
    family, rope = FAMILY_SCALINGS[name]
    given = dict(FAMILIES[family])
    if family == "pythia":
        given["hidden_size"] = 64  # a quarter of a head has two frequencies
    if "longrope" in name or name == "phi4_mini":
        given |= {"max_position_embeddings": 4 * TRAIN_LEN}
        if family.startswith("phi3"):
            given |= {"original_max_position_embeddings": TRAIN_LEN}
    given["rope_parameters"] = copy.deepcopy(rope)  # transformers completes it in place
    check(hf_model(**given), (TRAIN_LEN - 5, LONG))


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "mistral", "smollm3_window", "gemma3", "olmo3", "gpt_oss", "pythia"]
)
def test_continuations_over_a_grouped_query_cache_equal_transformers(family: str) -> None:
    model = hf_model(**FAMILIES[family])
    made, rng = ours(model), np.random.default_rng(0)
    prompt = Prompt(rng.integers(VOCABULARY, size=40), rng.integers(VOCABULARY, size=(5, 6)), 4)
    converted = NativeLM(
        made,
        TRAIN_LEN,
        KernelDispatcher("auto"),
        contextlib.nullcontext,
        max_tokens_per_batch=64,
    )
    black_box = HFLM(model, TRAIN_LEN, contextlib.nullcontext, max_tokens_per_batch=64)
    (one,), (other,) = converted.loglikelihood([prompt]), black_box.loglikelihood([prompt])
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-4)
    np.testing.assert_array_equal(one.greedy_ids, other.greedy_ids)
    prompt = Prompt(prompt.context, prompt.continuations, 0, max_new_tokens=5)
    (one,), (other,) = converted.generate([prompt]), black_box.generate([prompt])
    np.testing.assert_array_equal(one.ids, other.ids)


@pytest.mark.parametrize("path", EXTENSIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt_oss", "pythia"])
def test_every_extension_applies(path: Path, family: str) -> None:
    """Each changes the hidden states past the training length, and all stay finite."""
    given = FAMILIES[family] | ({"hidden_size": 128} if family == "pythia" else {})
    model = hf_model(**given)
    made = ours(model)
    settings = yaml.safe_load(path.read_text())["build"]
    if settings is None:
        return
    context = ExtensionContext(architecture_from_hf_config(model.config).shape(TRAIN_LEN), LONG)
    ids = torch.arange(LONG)[None] * 7 % VOCABULARY
    with torch.no_grad():
        plain, _ = made(ids)
        extended, _ = made.with_scheme(instantiate(settings, Extension, made.scheme, context))(ids)
    assert extended.isfinite().all()
    assert (extended - plain).abs().max() > 1e-3


def test_unsupported_positions_are_incompatible() -> None:
    def assert_incompatible(match: str, family: str = "llama", **given: object) -> None:
        config = hf_model(**FAMILIES[family], **given).config
        with pytest.raises(IncompatibleError, match=match):
            (
                architecture_from_hf_config(config),
                scheme_settings(config, TRAIN_LEN),
                scaling_settings(config),
            )

    def rope(**given: object) -> dict[str, object]:
        return {"rope_theta": 500.0, "rope_type": "yarn", "factor": 4.0, **BEFORE, **given}

    assert_incompatible("its MLP uses mish, not one of silu, gelu", hidden_act="mish")
    assert_incompatible("attention_factor 0.5 is below 1", rope_parameters=rope(attention_factor=0.5))
    assert_incompatible("has scale_attn_by_inverse", "gpt2", scale_attn_by_inverse_layer_idx=True)
    assert_incompatible("use_bidirectional_attention", "gemma3", use_bidirectional_attention=True)
    config = hf_model("gptj", n_embd=32, n_head=4, n_layer=1, rotary_dim=8).config
    with pytest.raises(IncompatibleError, match="gptj is not one of llama, arcee, mistral"):
        architecture_from_hf_config(config)


def test_layer_types_and_scalings_that_are_not_known() -> None:
    """A layer type that is not known was read as full attention, and a scaling by layer type not at all."""
    config = hf_model(**FAMILIES["gemma3"]).config
    config.rope_parameters["full_attention"] |= {"rope_type": "proportional"}
    with pytest.raises(IncompatibleError, match=r"rope type 'proportional' is not one of linear, dynamic"):
        scaling_settings(config)
    config.rope_parameters["full_attention"] = None
    with pytest.raises(IncompatibleError, match="layers without a rope_theta"):
        scheme_settings(config, TRAIN_LEN)
    for types in (["sliding_attention"] * 3, ["full_attention"] * 3 + ["chunked_attention"]):
        config = hf_model(**FAMILIES["olmo3"]).config
        config.layer_types = types
        with pytest.raises(IncompatibleError, match="layer_types are not 4 of full_attention and sliding"):
            scheme_settings(config, TRAIN_LEN)
    both = {
        "full_attention": scaled("yarn"),
        "sliding_attention": scaled("yarn", original_max_position_embeddings=16),
    }
    config = hf_model(**FAMILIES["gemma3"] | {"rope_parameters": both}).config
    with pytest.raises(IncompatibleError, match="begin at different lengths"):
        scaling_settings(config)


@pytest.mark.parametrize("layers", ["full", "windowed", [1, 3]])
@pytest.mark.parametrize("family", ["gemma3", "olmo3", "gpt_oss"])
def test_extensions_apply_by_layer(family: str, layers: str | list[int]) -> None:
    """An extension on the full-attention layers equals the model's own scaling of that layer type."""
    model = hf_model(**FAMILIES[family])
    made, ids = ours(model), torch.arange(LONG)[None] * 7 % VOCABULARY
    context = ExtensionContext(architecture_from_hf_config(model.config).shape(TRAIN_LEN), LONG)
    yarn = {"_target_": "posbench.extensions.yarn.YaRN", "factor": 4.0}
    on_layers = {"_target_": "posbench.position.on_layers.OnLayers", "extension": yarn, "layers": layers}
    extended = instantiate(on_layers, Extension, made.scheme, context)
    assert extended.layers == ({0, 2} if layers == "windowed" else {1, 3})
    with torch.no_grad():
        found = made.head(made.with_scheme(extended)(ids)[0])
        if family == "gpt_oss" or layers == "windowed":
            assert (found - made.head(made(ids)[0])).abs().max() > 1e-3
            return
        given = copy.deepcopy(FAMILIES[family])
        rope = model.config.rope_parameters
        given["rope_parameters"] = {
            "sliding_attention": dict(rope["sliding_attention"]),
            "full_attention": {**rope["full_attention"], **SCALINGS["yarn"]},
        }
        torch.testing.assert_close(found, hf_model(**given)(ids).logits, rtol=0, atol=3e-4)
    with pytest.raises(ConfigError, match=r"extension.layers \[4\]: give distinct indices from 0 to 3"):
        instantiate({**on_layers, "layers": [4]}, Extension, made.scheme, context)


def test_weights_that_do_not_fit_the_architecture() -> None:
    model = hf_model(**FAMILIES["qwen3"])
    own = architecture_from_hf_config(model.config)
    weights = dict(model.state_dict())
    with pytest.raises(DataError, match=r"it has no weight 'model.norm.weight'"):
        from_hf_state_dict(
            {k: v for k, v in weights.items() if k != "model.norm.weight"}, own, PositionScheme(), "it"
        )
    with pytest.raises(DataError, match=r"weights that its family does not, such as model.extra"):
        from_hf_state_dict({**weights, "model.extra": torch.zeros(1)}, own, PositionScheme(), "it")
    with pytest.raises(DataError, match=r"it does not have the weights.*q_norm"):
        from_hf_state_dict(
            {k: v for k, v in weights.items() if ".1.self_attn.q_norm" not in k}, own, PositionScheme(), "it"
        )
