"""Converted models against transformers: logits in float32 within 1e-4, and greedy tokens."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pretrained_models import BEFORE, FAMILIES, SCALINGS, TRAIN_LEN, VOCABULARY, hf_model

from posbench.errors import DataError, IncompatibleError
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.hf_positions import pretraining_len, scaling_settings, scheme_settings
from posbench.lm.hf_weights import architecture_from_hf_config, from_hf_state_dict
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
        scheme_settings(model.config), PositionScheme, own.shape(pretraining_len(model.config))
    )
    return from_hf_state_dict(dict(model.state_dict()), own, positions, "it")


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
    check(hf_model(**FAMILIES[family]), (TRAIN_LEN - 5, LONG))


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


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "smollm3_window"])
def test_continuations_over_a_grouped_query_cache_equal_transformers(family: str) -> None:
    model = hf_model(**FAMILIES[family])
    made, rng = ours(model), np.random.default_rng(0)
    prompt = Prompt(rng.integers(VOCABULARY, size=40), rng.integers(VOCABULARY, size=(5, 6)), 4)
    converted = NativeLM(
        made,
        TRAIN_LEN,
        KernelDispatcher("auto"),
        contextlib.nullcontext(),
        max_tokens_per_batch=64,
    )
    black_box = HFLM(model, TRAIN_LEN, contextlib.nullcontext(), max_tokens_per_batch=64)
    (one,), (other,) = converted.loglikelihood([prompt]), black_box.loglikelihood([prompt])
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-4)
    np.testing.assert_array_equal(one.greedy_ids, other.greedy_ids)
    prompt = Prompt(prompt.context, prompt.continuations, 0, max_new_tokens=5)
    (one,), (other,) = converted.generate([prompt]), black_box.generate([prompt])
    np.testing.assert_array_equal(one.ids, other.ids)


@pytest.mark.parametrize("path", EXTENSIONS, ids=lambda path: path.stem)
def test_every_extension_applies(path: Path) -> None:
    """Each changes the hidden states past the training length, and all stay finite."""
    made = ours(hf_model(**FAMILIES["qwen3"]))
    settings = yaml.safe_load(path.read_text())["build"]
    if settings is None:
        return
    context = ExtensionContext(
        architecture_from_hf_config(hf_model(**FAMILIES["qwen3"]).config).shape(TRAIN_LEN), LONG
    )
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
            architecture_from_hf_config(config), scheme_settings(config), scaling_settings(config)

    def rope(**given: object) -> dict[str, object]:
        return {"rope_theta": 500.0, "rope_type": "yarn", "factor": 4.0, **BEFORE, **given}

    assert_incompatible("its MLP uses gelu", hidden_act="gelu")
    assert_incompatible("attention_factor 0.5 is below 1", rope_parameters=rope(attention_factor=0.5))
    assert_incompatible("truncate", rope_parameters=rope(truncate=False))
    assert_incompatible("temperature in its rotary layers only", "smollm3", rope_parameters=rope())
    assert_incompatible(
        "window of 64 tokens is longer",
        "qwen2",
        use_sliding_window=True,
        sliding_window=64,
        max_window_layers=0,
    )
    config = hf_model("gpt_neox", hidden_size=32, num_attention_heads=4).config
    with pytest.raises(IncompatibleError, match="gpt_neox is not one of llama, mistral"):
        architecture_from_hf_config(config)


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
