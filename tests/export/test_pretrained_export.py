"""Exports of pretrained models: where generation ends, which factors apply, the tokenizer and the card."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from posbench.config.schema import ExtensionSettings
from posbench.export import card
from posbench.export.export import export_model
from posbench.export.source_model import SourceModel, load_pretrained

sys.path.append(str(Path(__file__).parents[1] / "lm"))
from pretrained_models import SCALINGS, TRAIN_LEN, VOCABULARY, saved

from posbench.config.schema import LMSettings


def load(folder: Path, **given: Any) -> SourceModel:
    lm = LMSettings("hugging_face", name=str(folder), **given)
    return load_pretrained(lm, ExtensionSettings(), None)


def export(source: SourceModel, out: Path, own_code: bool) -> str:
    out.mkdir()
    return export_model(
        source,
        out,
        results_dir=out,
        cache_dir=out,
        licence="",
        command="posbench export",
        own_code=own_code,
    )


@pytest.mark.parametrize("own_code", [False, True])
def test_generation_ends_as_the_source_s_does(own_code: bool, tmp_path: Path) -> None:
    """Fault: with code, eos and pad were the tokenizer's bos; without, the source's generation settings were dropped."""
    folder = saved(tmp_path / "given", "llama")
    given = {"eos_token_id": [1, 7], "pad_token_id": 5, "repetition_penalty": 1.5}
    (folder / "generation_config.json").write_text(json.dumps(given))
    family = export(load(folder), tmp_path / "out", own_code)
    assert family == ("posbench" if own_code else "llama")
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (found["eos_token_id"], found["pad_token_id"]) == ([1, 7], 5)
    if not own_code:
        assert found["repetition_penalty"] == 1.5


def test_ids_of_the_configuration_and_of_the_tokenizer(tmp_path: Path) -> None:
    """Without generation settings, eos is the configuration's, and pad the tokenizer's: eos, where it has none."""
    folder = saved(tmp_path / "given", "llama")
    (folder / "generation_config.json").unlink()
    export(load(folder), tmp_path / "out", own_code=True)
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (found["bos_token_id"], found["eos_token_id"], found["pad_token_id"]) == (0, 1, 1)


def test_the_tokenizer_pads_on_the_left(tmp_path: Path) -> None:
    """Fault: the card states left padding, and the tokenizer was written as in the source, without a pad token."""
    export(load(saved(tmp_path / "given", "llama")), tmp_path / "out", own_code=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    inputs = tokenizer(["x", "y = x * 77 - q"], return_tensors="pt", padding=True)
    assert inputs["attention_mask"][0].tolist()[0] == 0
    assert inputs["input_ids"][0, 0] == 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 2


@torch.no_grad()
@pytest.mark.parametrize("own_code", [False, True])
def test_longrope_without_a_length_goes_by_the_text(own_code: bool, tmp_path: Path) -> None:
    """Fault: a folder without a declared length read texts past the training length with the short factors."""
    rope = {"rope_theta": 500.0, **SCALINGS["longrope"]}
    folder = saved(tmp_path / "given", "llama", rope_parameters=rope, max_position_embeddings=4 * TRAIN_LEN)
    family = export(load(folder), tmp_path / "out", own_code)
    assert family == ("posbench" if own_code else "llama")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=own_code)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    for length in (TRAIN_LEN - 4, 3 * TRAIN_LEN):
        ids = torch.randint(VOCABULARY, (1, length), generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=0, atol=1e-4)


def test_the_card_names_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the card of a pretrained model called it a small research model of posbench and named no source."""
    source = load(saved(tmp_path / "given", "llama"))
    export(source, tmp_path / "out", own_code=True)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "The pretrained model given, exported by posbench" in text
    assert "other. The weights come from given, whose licence applies to them. The Python files are" in text
    assert "small research model" not in text
    assert "base_model" not in text, "which must be a name on the hub"
    source.pretrained.settings.name = "someone/model"
    text = card.model_card(source, card.rows_of(source, tmp_path)[0], [], "llama", "other", "", {}, [], [])
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "someone/model"
    assert head["license_link"] == "https://huggingface.co/someone/model"


def test_dtype(posbench, tmp_path: Path) -> None:
    """Fault: a pretrained model was always exported in float32."""
    folder = saved(tmp_path / "given", "llama")
    for name, more in (("plain", []), ("own", ["--own-code"])):
        out = tmp_path / name
        status, _, err = posbench("export", folder, "--to", out, "--dtype", "bfloat16", *more)
        assert status == 0, err
        assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
        model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=name == "own")
        assert model.dtype == torch.bfloat16
