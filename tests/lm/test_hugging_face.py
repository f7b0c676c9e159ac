"""Black boxes against direct calls of transformers; inspection of pretrained models, and its errors."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_models import BEFORE, SCALINGS, TRAIN_LEN, VOCABULARY, hf_model, saved

from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.errors import ConfigError, DataError, IncompatibleError, LengthError, UndefinedError
from posbench.extensions.yarn import YaRN
from posbench.instantiate import instantiate
from posbench.lm.hf_config import inspect_pretrained, load_hf_model
from posbench.lm.hugging_face import HFLM, OpaquePositions, check_causal
from posbench.lm.interface import Prompt
from posbench.position.scheme import PositionScheme

GPT2 = {"n_positions": TRAIN_LEN, "n_embd": 32, "n_layer": 2, "n_head": 4}
NEOX = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "rotary_pct": 0.5}
YARN = ExtensionSettings("yarn", {"_target_": f"{YaRN.__module__}.YaRN"})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbids access to the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def lm(model: torch.nn.Module, max_tokens_per_batch: int = 64) -> HFLM:
    return HFLM(model, TRAIN_LEN, contextlib.nullcontext, max_tokens_per_batch)


def prompt(context: int, continuations: int, answer: int = 3, max_new_tokens: int = 0) -> Prompt:
    rng = np.random.default_rng([context, continuations])
    candidates = rng.integers(VOCABULARY, size=5)
    ids = rng.integers(2, VOCABULARY, context), rng.integers(2, VOCABULARY, (continuations, 4))
    return Prompt(*ids, answer, max_new_tokens=max_new_tokens, candidate_ids=candidates)


def direct(model: torch.nn.Module, request: Prompt, row: int) -> tuple[np.ndarray, ...]:
    """(A,) nats and greedy ids of the scored ids, (M,) nats of the candidates: one pass over the whole sequence."""
    ids = torch.tensor(np.concatenate([request.context, request.continuations[row]]))[None]
    with torch.no_grad():
        nats = model(ids[:, :-1], use_cache=False).logits[0, -request.n_scored :].log_softmax(-1)
    target = ids[0, -request.n_scored :]
    return (
        nats.gather(-1, target[:, None])[:, 0].numpy(),
        nats.argmax(-1).numpy(),
        nats[0, request.candidate_ids].numpy(),
    )


MODELS = {
    "gpt2": ("gpt2", GPT2),
    "gpt_neox": ("gpt_neox", NEOX),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "mistral with its window": ("mistral", {"sliding_window": 8}),
    **{
        kind: ("llama", {"rope_parameters": {"rope_theta": 500.0, **SCALINGS[kind]}})
        for kind in ("yarn", "dynamic", "longrope")
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_one_pass_over_the_whole_sequence(name: str) -> None:
    """With and without a shared prefill, batched, and after longer texts, which dynamic scaling remembers."""
    kind, given = MODELS[name]
    model, reference = hf_model(kind, **given), hf_model(kind, **given)
    longest = TRAIN_LEN if kind == "gpt2" else 2 * TRAIN_LEN
    requests = [
        prompt(longest - 4, 1),
        prompt(longest - 4, 5),
        prompt(20, 1),
        prompt(20, 1),
        prompt(1, 3),
        prompt(20, 5),
    ]
    for one, found in zip(requests, lm(model).loglikelihood(requests), strict=True):
        for row in range(len(one.continuations)):
            fresh = hf_model(kind, **given) if name == "dynamic" else reference
            nats, greedy, candidates = direct(fresh, one, row)
            np.testing.assert_allclose(found.logprob[row], nats, atol=1e-4)
            np.testing.assert_allclose(found.candidate_logprobs[row], candidates, atol=1e-4)
            assert found.greedy_ids[row].tolist() == greedy.tolist()


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "dynamic"])
def test_generation_is_greedy_to_the_last_token(name: str) -> None:
    """Each id has the highest logit of a pass over the whole sequence, whatever the model's generation settings."""
    kind, given = MODELS[name]
    model = hf_model(kind, **given)
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.do_sample = True
    request = prompt(20, 3, answer=0, max_new_tokens=6)
    (found,) = lm(model).generate([request])
    for row in range(3):
        ids = [*request.context, *request.continuations[row]]
        for token in found.ids[row]:
            with torch.no_grad():
                assert token == model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
            ids.append(token)
    assert found.ids.shape == (3, 6)


def test_inspection_of_a_folder(tmp_path: Path) -> None:
    rope = {"rope_theta": 500.0, **SCALINGS["yarn"]}
    folder = saved(tmp_path / "mine", "llama", rope_parameters=rope, max_position_embeddings=4 * TRAIN_LEN)
    found = inspect_pretrained(LMSettings("hugging_face", str(folder)))
    assert (found.label, found.train_len, found.scaling.name) == ("mine", TRAIN_LEN, "own_yarn")
    assert found.resolve_extension(ExtensionSettings()) == found.scaling
    assert found.resolve_extension(YARN) == YARN, "replaces its own scaling"
    # The id depends on the content of the files, not on the folder.
    moved = folder.rename(tmp_path / "elsewhere")
    assert inspect_pretrained(LMSettings("hugging_face", str(moved))).id == found.id
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert inspect_pretrained(LMSettings("hugging_face", str(moved))).id != found.id


def test_a_configuration_older_than_transformers_5(tmp_path: Path) -> None:
    """Most configurations on the hub have rope_theta and rope_scaling as separate entries."""
    folder = saved(tmp_path / "mine", "llama")
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    old = {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    (folder / "config.json").write_text(json.dumps(config | old))
    found = inspect_pretrained(LMSettings("hugging_face", str(folder)))
    assert found.scheme["rope_theta"] == 5000.0
    assert (found.scaling.name, found.scaling.build["factor"]) == ("own_linear", 2.0)


def test_rope_scaling_can_be_replaced(tmp_path: Path) -> None:
    """A black box applies it in transformers, a converted model as an extension."""
    folder = saved(tmp_path / "mine", "llama")
    plain = inspect_pretrained(LMSettings("hugging_face", str(folder)))
    assert plain.scaling.name == "none"
    scaled = {"rope_type": "yarn", "factor": 4.0, **BEFORE}
    for black_box in (False, True):
        settings = LMSettings("hugging_face", str(folder), black_box=black_box, rope_scaling=scaled)
        found = inspect_pretrained(settings)
        assert found.scaling.name == "own_yarn"
        assert (found.scaling.build is None) == (found.architecture is None) == black_box
        assert found.id != plain.id
    model = load_hf_model(found)
    expected = hf_model("llama", rope_parameters={"rope_theta": 10000.0, **scaled})
    request = prompt(60, 1)
    (ours,) = lm(model).loglikelihood([request])
    np.testing.assert_allclose(ours.logprob[0], direct(expected, request, 0)[0], atol=1e-5)
    # Frequencies that differ from the configuration are an error.
    model.model.rotary_emb.inv_freq.mul_(1.01)
    with pytest.raises(DataError, match="rope type 'yarn' has no effect on llama"):
        lm(model)


def test_a_table_of_positions_limits_the_length(tmp_path: Path) -> None:
    """Converted, it is undefined past its table; unconverted, its placeholder knows the length."""
    folder = saved(tmp_path / "mine", "gpt2", **GPT2)
    converted = inspect_pretrained(LMSettings("hugging_face", str(folder)))
    assert converted.architecture is not None
    shape = converted.architecture.shape(TRAIN_LEN)
    with pytest.raises(UndefinedError, match=f"table of {TRAIN_LEN} rows has no position {TRAIN_LEN}"):
        instantiate(converted.scheme, PositionScheme, shape).check(TRAIN_LEN + 1)
    other = inspect_pretrained(LMSettings("hugging_face", str(folder), train_len=16))
    assert "its table has 32 positions, not the 16 of lm.train_len" in other.black_box_reason
    found = inspect_pretrained(LMSettings("hugging_face", str(folder), black_box=True))
    assert found.architecture is None
    scheme = OpaquePositions(None, found.scheme["max_position_embeddings"])
    scheme.check(TRAIN_LEN)
    with pytest.raises(LengthError, match=f"33 tokens.*{TRAIN_LEN} positions"):
        scheme.check(TRAIN_LEN + 1)
    for kind, given in (("bloom", {"n_layer": 2, "n_head": 4}), ("gpt_neox", NEOX)):
        folder = saved(tmp_path / kind, kind, **given)
        assert (
            inspect_pretrained(LMSettings("hugging_face", str(folder), black_box=True)).scheme[
                "max_position_embeddings"
            ]
            == 0
        ), kind


def test_a_black_box_takes_no_extension(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mine", "bloom", n_layer=2, n_head=4)
    found = inspect_pretrained(LMSettings("hugging_face", str(folder), train_len=TRAIN_LEN))
    with pytest.raises(
        IncompatibleError, match=r"extension yarn on mine: a black box \(bloom is not one of llama"
    ):
        found.resolve_extension(YARN)
    with pytest.raises(IncompatibleError, match="not available for unconverted models"):
        lm(load_hf_model(found)).attention_weights([])
    with pytest.raises(IncompatibleError, match="finetune"):
        found.resolve_extension(ExtensionSettings("yarn", YARN.build, finetune={"steps": 3}))


def test_a_model_that_attends_to_later_tokens_is_not_causal() -> None:
    bert = object.__new__(HFLM)
    bert.model = hf_model("bert", is_decoder=False)
    bert.device, bert.precision, bert.remembers_length, bert.limits_logits, bert.train_len = (
        torch.device("cpu"),
        contextlib.nullcontext,
        False,
        False,
        TRAIN_LEN,
    )
    with pytest.raises(DataError, match="bert is not a causal language model"):
        check_causal(bert)


def folder_with(tmp_path: Path, **config: object) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    def assert_error(match: str, error: type[Exception] = DataError, **given: object) -> None:
        with pytest.raises(error, match=match) as caught:
            inspect_pretrained(LMSettings("hugging_face", **given))
        assert "\n" not in str(caught.value)

    assert_error("lm=hugging_face needs lm.name", ConfigError)
    assert_error("there is no such folder", name=str(tmp_path / "nowhere"))
    assert_error("there is no such folder", name="./nowhere")
    assert_error("nobody/nothing' has to be downloaded, but HF_HUB_OFFLINE is set", name="nobody/nothing")
    assert_error("cannot be loaded", name=str(tmp_path))
    assert_error("cannot be loaded", name=folder_with(tmp_path, model_type="nonesuch"))
    assert_error("not a text-only model", name=folder_with(tmp_path, model_type="llava"))
    remote = {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Config"}}
    assert_error("own code, which is not executed", name=folder_with(tmp_path, **remote))
    t5 = folder_with(tmp_path, model_type="t5", max_position_embeddings=8)
    assert_error("it is not a causal language model", name=t5)
    assert_error("has no weights", name=folder_with(tmp_path, model_type="llama"))
    folder = str(saved(tmp_path / "mine", "llama"))
    assert_error("dtype 'float8'.*bfloat16", ConfigError, name=folder, dtype="float8")
    assert_error(
        "rope_type 'yarm'.*did you mean 'yarn'", ConfigError, name=folder, rope_scaling={"rope_type": "yarm"}
    )
    assert_error("factor", ConfigError, name=folder, rope_scaling={"rope_type": "yarn"})
    for given, key in (
        ({"rope_type": "default", "factor": 4.0}, "factor"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}, "mscale"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ):
        # fault: accepted, and the model under another id
        assert_error(f"lm.rope_scaling.{key} changes nothing", ConfigError, name=folder, rope_scaling=given)
    gpt2 = str(saved(tmp_path / "gpt2", "gpt2", **GPT2))
    assert_error(
        "no rotation", IncompatibleError, name=gpt2, rope_scaling={"rope_type": "linear", "factor": 2.0}
    )


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    """transformers would initialize them at random."""
    folder = saved(tmp_path / "mine", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(DataError, match=r"has no weights model.layers.4"):
        load_hf_model(inspect_pretrained(LMSettings("hugging_face", str(folder))))
