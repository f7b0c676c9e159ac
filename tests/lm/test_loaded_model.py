"""The loaded model decides, not its configuration: keys that are not read, ties, rotations by layer, broken files.

Every test opens a folder as a user would; each of its inputs gave wrong numbers or a traceback once.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained_models import FAMILIES, TRAIN_LEN, VOCABULARY, saved
from safetensors.torch import load_file, save_file

from posbench.config.schema import LMSettings
from posbench.errors import DataError, IncompatibleError, PosbenchError, UndefinedError
from posbench.instantiate import instantiate
from posbench.lm import hf_check
from posbench.lm.hf_config import inspect_pretrained, load_hf_model
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.lm.hugging_face import HFLM
from posbench.lm.interface import Prompt
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme


def edit(folder: Path, **config: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def settings_of(folder: Path, **given: Any) -> LMSettings:
    return LMSettings("hugging_face", str(folder), **given)


def difference(folder: Path) -> float:
    """Opens a folder, converts it and compares it with transformers, as a run does."""
    found = inspect_pretrained(settings_of(folder))
    assert found.architecture is not None, found.black_box_reason
    model, shape = load_hf_model(found), found.architecture.shape(found.train_len)
    texts = hf_check.check_texts([20, 3 * TRAIN_LEN], VOCABULARY, torch.device("cpu"))
    theirs = hf_check.transformers_logits(model, texts, "it")
    scheme = instantiate(found.scheme, PositionScheme, shape)
    made = from_hf_state_dict(dict(model.state_dict()), found.architecture, scheme, "it", found.family)
    ours = []
    for ids in texts:
        length = ids.shape[1]
        if found.scaling.build is not None:
            context = ExtensionContext(shape, length)
            made = made.with_scheme(instantiate(found.scaling.build, Extension, scheme, context))
        with torch.no_grad():
            ours.append(made.head(made(ids, length=length)[0][0, -hf_check.POSITIONS :]))
    return hf_check.largest_difference(ours, theirs)


# Keys that the family's code in transformers does not read, or reads in a way of its own.
KEYS = {
    "llama, a window": ("llama", {"sliding_window": 8}),
    "llama, a window that is on": ("llama", {"sliding_window": 8, "use_sliding_window": True}),
    "llama, window layers": ("llama", {"sliding_window": 8, "layer_types": ["sliding_attention"] * 4}),
    "llama, layers without rotation": ("llama", {"no_rope_layers": [0, 1, 0, 1]}),
    "mistral, a window that is off": ("mistral", {"use_sliding_window": False}),
    "mistral, layers without rotation": ("mistral", {"no_rope_layers": [0, 1, 0, 1]}),
    "mistral, biases": ("mistral", {"attention_bias": True, "mlp_bias": True}),
    "qwen2, biases": ("qwen2", {"attention_bias": True, "mlp_bias": True}),
    "qwen2, a window that is off": ("qwen2", {"use_sliding_window": False, "sliding_window": 8}),
    "qwen2, window layers": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 8,
            "max_window_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "qwen3, layers without rotation": ("qwen3", {"no_rope_layers": [0, 1, 0, 1], "mlp_bias": True}),
    "smollm3, a window that is off": ("smollm3", {"use_sliding_window": False, "sliding_window": 8}),
    "smollm3, window layers": (
        "smollm3",
        {"use_sliding_window": False, "sliding_window": 8, "layer_types": ["sliding_attention"] * 4},
    ),
    "phi3, window layers": ("phi3", {"attention_bias": True, "layer_types": ["sliding_attention"] * 4}),
    "olmo3, layers without rotation": ("olmo3", {"no_rope_layers": [0, 1, 0, 1], "mlp_bias": True}),
    "gemma3, an attention softcap": ("gemma3", {"attn_logit_softcapping": 2.0, "mlp_bias": True}),
    "pythia, a window and grouped queries": ("pythia", {"sliding_window": 8, "num_key_value_heads": 2}),
    "original length of an unscaled rotation": (
        "llama",
        {
            "rope_parameters": {
                "rope_theta": 500.0,
                "rope_type": "default",
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "original length of a dynamic rotation": (
        "llama",
        {
            "rope_parameters": {
                "rope_theta": 500.0,
                "rope_type": "dynamic",
                "factor": 2.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "original length of a linear rotation": (
        "llama",
        {
            "rope_parameters": {
                "rope_theta": 500.0,
                "rope_type": "linear",
                "factor": 2.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "part of a head": (
        "llama",
        {"partial_rotary_factor": 0.5, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_family_reads_the_keys_that_its_code_reads(name: str, tmp_path: Path) -> None:
    """A sliding_window left in a llama configuration changed perplexity from 478 to 413; dynamic scaling used
    original_max_position_embeddings, which transformers ignores."""
    family, config = KEYS[name]
    assert difference(edit(saved(tmp_path, **FAMILIES[family]), **config)) < 5e-5


@pytest.mark.parametrize("family", ["smollm", "qwen3", "llama"])
def test_embeddings_are_tied_if_the_loaded_model_ties_them(family: str, tmp_path: Path) -> None:
    """With tie_word_embeddings: true and an lm_head of its own in the file, perplexity was 472 in place of 983."""
    folder = edit(saved(tmp_path, **FAMILIES[family]), tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    own = torch.randn(VOCABULARY, 32, generator=torch.Generator().manual_seed(3))
    save_file(weights | {"lm_head.weight": own}, folder / "model.safetensors", metadata={"format": "pt"})
    assert not torch.equal(
        load_hf_model(inspect_pretrained(settings_of(folder))).lm_head.weight,
        weights["model.embed_tokens.weight"],
    )
    assert difference(folder) < 1e-5


def test_a_conversion_that_differs_from_transformers_is_refused() -> None:
    """No comparison was made on opening, so that each of the faults above went unnoticed."""
    hf_check.check_difference(9e-5, "float32", [32, 65], "mine")
    for value in (2e-4, float("nan")):
        with pytest.raises(
            IncompatibleError, match=r"mine as converted.*32 and 65 tokens.*lm.black_box=true"
        ):
            hf_check.check_difference(value, "float32", [32, 65], "mine")
    cpu = torch.device("cpu")
    assert hf_check.check_lengths(2048, 135_000_000, cpu) == [32, 4097]
    assert hf_check.check_lengths(10**6, 1000, cpu) == [32, hf_check.MAX_TOKENS]
    assert hf_check.check_lengths(2048, 10**12, cpu) == [32, 32], "bounded cost"


GEMMA3 = {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAIN_LEN, "rope_theta": 1e4}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize("family", ["olmo3", "gemma3_text"])
def test_rotations_by_layer_type_are_read(family: str, tmp_path: Path) -> None:
    """They were "not understood" and treated as none: label and training length were wrong."""
    rope = {"sliding_attention": PLAIN, "full_attention": YARN}
    given = GEMMA3 | {"rope_parameters": rope, "max_position_embeddings": 4 * TRAIN_LEN}
    folder = saved(tmp_path, family, **given)
    found = inspect_pretrained(settings_of(folder))
    assert (found.scaling.name, found.train_len) == ("own_yarn", TRAIN_LEN)
    assert found.scaling.build is not None
    assert found.scaling.build["layers"] == [1, 3], "the full-attention layers"
    assert difference(folder) < 1e-5
    HFLM(load_hf_model(found), TRAIN_LEN, contextlib.nullcontext, 64)
    scaling = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(IncompatibleError, match=r"full_attention.*rope parameters of their own"):
        inspect_pretrained(settings_of(folder, rope_scaling=scaling))


MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
MPT = {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": TRAIN_LEN}
# Configurations as saved by transformers, with the entries that files on the hub have.
LENGTHS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "bloom": ("bloom", BLOOM, {"seq_length": TRAIN_LEN}, 0),
    "bloom without a length": ("bloom", BLOOM, {}, TRAIN_LEN),
    "mpt": ("mpt", MPT, {}, 0),
    "mamba": ("mamba", MAMBA, {}, TRAIN_LEN),
    "gpt2": ("gpt2", {"n_positions": TRAIN_LEN, "n_embd": 32, "n_layer": 2, "n_head": 4}, {}, 0),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_models_without_max_position_embeddings(name: str, tmp_path: Path) -> None:
    """BLOOM, MPT and Mamba were refused; an attribute that they do not have hid it in the tests."""
    family, given, entries, train_len = LENGTHS[name]
    folder = saved(tmp_path, family, **given)
    config = json.loads((folder / "config.json").read_text())
    if family != "gpt2":
        config.pop("max_position_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config | entries))
    if train_len:
        with pytest.raises(IncompatibleError, match=r"does not state the training length.*lm.train_len"):
            inspect_pretrained(settings_of(folder))
    found = inspect_pretrained(settings_of(folder, train_len=train_len))
    assert (found.train_len, found.scaling.name) == (TRAIN_LEN, "none")
    assert (found.architecture is not None) == (family == "gpt2")
    model = load_hf_model(found)
    lm = HFLM(model, TRAIN_LEN, contextlib.nullcontext, 256)
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(rng.integers(2, VOCABULARY, 10), rng.integers(2, VOCABULARY, (n, 4)), 3) for n in (1, 4)
    ]
    for prompt, scores in zip(prompts, lm.loglikelihood(prompts), strict=True):
        ids = torch.from_numpy(np.concatenate([prompt.context, prompt.continuations[0]]))[None]
        with torch.no_grad():
            nats = model(ids[:, :-1], use_cache=False).logits[0, -3:].log_softmax(-1)
        expected = nats.gather(-1, ids[0, -3:, None])[:, 0].numpy()
        np.testing.assert_allclose(scores.logprob[0], expected, atol=1e-4)
    (generated,) = lm.generate([Prompt(prompts[0].context, prompts[0].continuations, 0, max_new_tokens=3)])
    assert generated.ids.shape == (1, 3)
    long = Prompt(rng.integers(2, VOCABULARY, 2 * TRAIN_LEN), rng.integers(2, VOCABULARY, (1, 1)), 1)
    if family == "mpt":  # whose table of biases ends at max_seq_len
        with pytest.raises(UndefinedError, match="64 tokens: transformers' mpt fails"):
            list(lm.loglikelihood([long]))
    elif family != "gpt2":
        assert all(np.isfinite(one.logprob).all() for one in lm.loglikelihood([long]))


def lfs(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)


def cut(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])


def as_bin(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


BROKEN = {
    "git-lfs pointer": (lfs, "model.safetensors is a git-lfs pointer.*git lfs pull"),
    "half of the weights": (lambda folder: cut(folder, 20_000), "model.safetensors"),
    "eight bytes of weights": (lambda folder: cut(folder, 8), "model.safetensors"),
    "empty weights": (lambda folder: cut(folder, 0), "model.safetensors"),
    "a .bin that is a pointer": (lambda folder: as_bin(folder, b"version https://git-lfs"), "git lfs pull"),
    "a .bin of noise": (lambda folder: as_bin(folder, b"noise" * 9), "cannot be loaded"),
    "an empty .bin": (lambda folder: as_bin(folder, b""), "cannot be loaded"),
    "padding past the end": (lambda folder: edit(folder, pad_token_id=VOCABULARY), "pad_token_id 300"),
    "no heads": (lambda folder: edit(folder, num_attention_heads=0), "cannot be loaded"),
    "an odd number of heads": (lambda folder: edit(folder, num_attention_heads=3), "cannot be loaded"),
    "another vocabulary": (lambda folder: edit(folder, vocab_size=280), "embed_tokens|cannot be loaded"),
    "config.json that is a pointer": (
        lambda folder: (folder / "config.json").write_text("version https://git-lfs"),
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("black_box", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_errors_of_one_line(name: str, black_box: bool, tmp_path: Path) -> None:
    """A git-lfs pointer, a truncated file and a pad_token_id of the vocabulary's size were tracebacks."""
    damage, match = BROKEN[name]
    folder = saved(tmp_path, "llama")
    damage(folder)
    with pytest.raises(PosbenchError, match=match) as caught:
        load_hf_model(inspect_pretrained(settings_of(folder, black_box=black_box)))
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)
