"""Pretrained models at another training length than their configuration's, with long windows, and in ensembles."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretrained_models import FAMILIES, SCALINGS, TRAIN_LEN, VOCABULARY, hf_model, saved

from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.evaluation.evaluator import EvaluatedModel
from posbench.instantiate import instantiate
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm import hf_check
from posbench.lm.hf_config import PretrainedInfo, inspect_pretrained, load_hf_model
from posbench.lm.hf_positions import scheme_settings
from posbench.lm.hf_rope_scaling import scaling_settings
from posbench.lm.hf_weights import from_hf_state_dict
from posbench.model.gpt import GPT
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import PositionScheme


def inspected(folder: Path, train_len: int = 0) -> PretrainedInfo:
    found = inspect_pretrained(LMSettings("hugging_face", str(folder), train_len=train_len))
    assert found.architecture is not None, found.black_box_reason
    return found


def converted(found: PretrainedInfo) -> GPT:
    assert found.architecture is not None
    scheme = instantiate(found.scheme, PositionScheme, found.architecture.shape(found.train_len))
    weights = dict(load_hf_model(found).state_dict())
    return from_hf_state_dict(weights, found.architecture, scheme, "it", found.family)


def difference(found: PretrainedInfo) -> float:
    """The converted model against transformers, on texts around both training lengths."""
    model, made = load_hf_model(found), converted(found)
    assert found.architecture is not None
    texts = hf_check.check_texts([20, TRAIN_LEN + 8, 3 * TRAIN_LEN], VOCABULARY, torch.device("cpu"))
    theirs, ours = hf_check.transformers_logits(model, texts, "it"), []
    for ids in texts:
        length = ids.shape[1]
        context = ExtensionContext(found.architecture.shape(found.train_len), length)
        extended = (
            made.scheme
            if found.scaling.build is None
            else instantiate(found.scaling.build, Extension, made.scheme, context)
        )
        with torch.no_grad():
            hidden = made.with_scheme(extended)(ids, length=length)[0]
            ours.append(made.head(hidden[0, -hf_check.POSITIONS :]))
    return hf_check.largest_difference(ours, theirs)


@pytest.mark.parametrize("train_len", [TRAIN_LEN // 2, 2 * TRAIN_LEN])
@pytest.mark.parametrize("kind", SCALINGS)
def test_another_training_length_keeps_the_scaling(kind: str, train_len: int, tmp_path: Path) -> None:
    """Fault: lm.train_len took the place of original_max_position_embeddings in the model's own scaling."""
    folder = saved(tmp_path, "llama", rope_parameters={"rope_theta": 500.0, **SCALINGS[kind]})
    plain, found = inspected(folder), inspected(folder, train_len)
    assert found.train_len == train_len
    assert difference(found) < 1e-5
    assert inspected(folder, TRAIN_LEN).scaling.build == plain.scaling.build, "the same settings, and ids"
    assert (found.scaling.build == plain.scaling.build) == (kind == "linear")


LONGROPE = {"rope_theta": 500.0, **SCALINGS["longrope"]}
PHI3 = {
    "model_type": "phi3",
    "max_position_embeddings": 4 * TRAIN_LEN,
    "original_max_position_embeddings": TRAIN_LEN,
    "rope_parameters": LONGROPE,
}


@pytest.mark.parametrize("window", [TRAIN_LEN + 4, 8 * TRAIN_LEN])
def test_windows_longer_than_the_training_length(window: int, tmp_path: Path) -> None:
    """Fault: Phi-3-mini-128k and Phi-4-mini, whose window is longer than their original length, were black boxes."""
    found = inspected(saved(tmp_path, **PHI3, sliding_window=window))
    assert found.train_len == TRAIN_LEN
    assert difference(found) < 1e-5


def test_a_window_longer_than_lm_train_len(tmp_path: Path) -> None:
    """Fault: lm.train_len below the window of a model was an error of the window of models trained here."""
    given: dict[str, Any] = FAMILIES["mistral"]
    folder = saved(tmp_path, **given)
    assert difference(inspected(folder, 4)) < 1e-5
    assert "Long" not in str(inspected(folder).scheme), "the same settings, and ids"
    assert scheme_settings(hf_model(**given).config, 4) == inspected(folder, 4).scheme


def test_truncate_is_read_where_transformers_reads_it() -> None:
    """Fault: `truncate: false` in the parameters of a layer type was followed, and transformers ignores it there."""
    yarn = {"rope_theta": 500.0, **SCALINGS["yarn"], "truncate": False}
    plain = {"rope_type": "default", "rope_theta": 100.0}
    by_type = {"full_attention": yarn, "sliding_attention": plain}
    model = hf_model(**FAMILIES["olmo3"] | {"rope_parameters": by_type})
    assert "ramp" not in scaling_settings(model.config)["extension"]
    assert scaling_settings(hf_model("llama", rope_parameters=yarn).config)["ramp"] == "fractional_dimensions"


def test_chunks_are_read_with_the_short_factors(tmp_path: Path) -> None:
    """Fault: an ensemble read chunks within the training length with the factors for the length of the whole context."""
    found = inspected(saved(tmp_path, **PHI3))
    made = object.__new__(EvaluatedModel)
    made.model, made.device, made.max_tokens_per_batch = converted(found), torch.device("cpu"), 64
    shape = found.architecture.shape(TRAIN_LEN)
    size = SimpleNamespace(architecture=found.architecture)
    made.plan = SimpleNamespace(settings=SimpleNamespace(train=SimpleNamespace(seq_len=TRAIN_LEN), size=size))
    cell: Any = SimpleNamespace(dtype="float32", length=4 * TRAIN_LEN, extension=found.scaling)
    ids = torch.arange(TRAIN_LEN)[None]
    short = instantiate(found.scaling.build, Extension, made.model.scheme, ExtensionContext(shape, TRAIN_LEN))
    with pytest.MonkeyPatch.context() as patched, torch.no_grad(), contextlib.nullcontext():
        patched.setattr("posbench.plan.plan.model_shape", lambda _: shape)
        expected = made.model.with_scheme(short)(ids)[0]
        for ensemble in (None, {"_target_": "ensemble/chunks"}):
            cell.extension = ExtensionSettings("it", found.scaling.build, ensemble=ensemble)
            lm = made.lm(cell, KernelDispatcher("auto"), 64)
            assert lm.model(ids)[0].equal(expected) == (ensemble is not None)
