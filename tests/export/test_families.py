"""Models that transformers has in all but name are exported without code of their own."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.export.export import export_model
from posbench.export.families import as_family
from posbench.export.source_model import SourceModel, load_pretrained
from posbench.model.gpt import GPT, Size, build_scheme

sys.path.append(str(Path(__file__).parents[1] / "lm"))
from pretrained_models import FAMILIES, SCALINGS, TRAIN_LEN, VOCABULARY, saved

ROPE, NOPE = "posbench.schemes.rope.RoPE", "posbench.schemes.nope.NoPE"
YARN, PI = "posbench.extensions.yarn.YaRN", "posbench.extensions.pi.PositionInterpolation"
NONE = ExtensionSettings()


def export(source: SourceModel, folder: Path) -> str:
    folder.mkdir()
    return export_model(
        source, folder, results_dir=folder, cache_dir=folder, licence="", command="posbench export"
    )


def own(scheme: dict, extension: ExtensionSettings = NONE, length: int | None = None) -> SourceModel:
    """A model as it is trained here, with random weights."""
    size = Size(n_layers=2, d_model=32, n_heads=4)
    model = GPT(size, VOCABULARY, build_scheme(scheme, size.shape(TRAIN_LEN), 0), seed=0)
    return SourceModel("", "mine", model.eval(), scheme, extension, length, TRAIN_LEN)


@pytest.mark.parametrize("family", FAMILIES)
def test_pretrained_families_come_back(family, tmp_path):
    """Weights that were read, joined and transposed are written as they were, to the bit."""
    given = saved(tmp_path / "given", **FAMILIES[family])
    source = load_pretrained(LMSettings("hugging_face", name=str(given)), NONE, None)
    assert export(source, tmp_path / "out") == source.pretrained.family
    assert not list((tmp_path / "out").glob("*.py"))
    before, after = (
        AutoModelForCausalLM.from_pretrained(one, trust_remote_code=False).state_dict()
        for one in (given, tmp_path / "out")
    )
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.equal(after[name]), name


@pytest.mark.parametrize("family", ["smollm", "gpt2", "gemma3", "gpt_oss", "neox_sequential"])
def test_a_pretrained_model_under_an_extension(family, tmp_path):
    """Tied heads, tables, soft caps and experts in posbench's own files; StreamingLLM is in no family of transformers."""
    given = saved(tmp_path / "given", **FAMILIES[family])
    window = ExtensionSettings("window", {"_target_": "posbench.extensions.window.Window", "window": 8})
    length = TRAIN_LEN if family == "gpt2" else 2 * TRAIN_LEN
    source = load_pretrained(LMSettings("hugging_face", name=str(given)), window, length)
    assert export(source, tmp_path / "out") == "posbench"
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", trust_remote_code=True, output_loading_info=True
    )
    assert not any(report.values()), report
    ids = torch.randint(VOCABULARY, (2, length), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        extended = source.extended()
        assert model.eval()(ids).logits.equal(extended.head(extended(ids, length=length)[0]))
    tied = source.model.architecture.tie_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_scaling_of_its_own_needs_no_length(scaling, tmp_path):
    """Its own scaling was taken for an extension, which needs a length."""
    given = saved(
        tmp_path / "given", model_type="llama", rope_parameters={"rope_theta": 500.0, **SCALINGS[scaling]}
    )
    source = load_pretrained(LMSettings("hugging_face", name=str(given)), NONE, None)
    assert source.extension.name.startswith("own_")
    model = as_family(source, 0)
    assert model is not None
    assert model.config.rope_parameters["rope_type"] == SCALINGS[scaling]["rope_type"]


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("extension", [None, YARN, PI])
def test_rope_is_an_arcee(interleaved, extension, tmp_path):
    settings = ExtensionSettings() if extension is None else ExtensionSettings("it", {"_target_": extension})
    source = own(
        {"_target_": ROPE, "interleaved": interleaved, "rope_theta": 500.0},
        settings,
        4 * TRAIN_LEN if extension else None,
    )
    model = as_family(source, 0)
    assert model is not None
    assert model.config.model_type == "arcee"
    ids = torch.randint(VOCABULARY, (2, 3 * TRAIN_LEN), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        extended = source.extended()
        expected = extended.head(extended(ids, length=source.length)[0])
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-4)
    model.save_pretrained(tmp_path)
    back = load_pretrained(LMSettings("hugging_face", name=str(tmp_path)), NONE, None).extended()
    with torch.no_grad():
        torch.testing.assert_close(back.head(back(ids)[0]), expected, rtol=0, atol=1e-4)


def test_what_is_none_of_them_needs_code():
    """NoPE, and an extension that transformers has not, have no family; a model under them is not passed off as one."""
    assert as_family(own({"_target_": NOPE}), 0) is None
    rerope = ExtensionSettings("rerope", {"_target_": "posbench.extensions.rerope.ReRoPE"})
    assert as_family(own({"_target_": ROPE}, rerope, 4 * TRAIN_LEN), 0) is None
    # Beyond what transformers' own rule for the length computes, the numbers decide.
    dynamic = ExtensionSettings("dynamic", {"_target_": "posbench.extensions.dynamic_ntk.DynamicNTK"})
    assert as_family(own({"_target_": ROPE}, dynamic, 4 * TRAIN_LEN), 0) is None
