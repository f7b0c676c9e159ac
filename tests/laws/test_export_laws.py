"""Exported models against the models themselves, in a process where posbench cannot be imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from variants import ALONE, EXTENDED, EXTENSIONS, SCHEMES, SIZE, TRAIN_LEN, VOCABULARY, Variant, is_defined

from posbench.config.schema import ExtensionSettings
from posbench.export.folder import write_model
from posbench.export.source_model import SourceModel
from posbench.model.gpt import GPT

pytestmark = pytest.mark.slow

LENGTH = 40
# In a process of its own: loads every folder, compares logits and generates with a cache, alone and in a padded batch.
LOAD = Path(__file__).with_name("load_exported.py")
# One scheme for each extension: the first of those in which it is tested.
ONE_OF_EACH = list({variant.extension: variant for variant in reversed(EXTENDED)}.values())


def source_model(variant: Variant) -> SourceModel:
    """A model with random weights, also where those of the scheme are zero at first."""
    model = GPT(SIZE, VOCABULARY, variant.inner(), seed=0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.scheme.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    extension = ExtensionSettings()
    length = None
    if variant.extension is not None:
        extension, length = ExtensionSettings(variant.extension, EXTENSIONS[variant.extension]), LENGTH
    scheme = SCHEMES[variant.scheme]
    assert scheme is not None
    return SourceModel("", str(variant), model.eval(), scheme, extension, length, TRAIN_LEN)


def export_and_load(variants: list[Variant], folder: Path) -> None:
    """Exports models and checks them in another process."""
    for variant in variants:
        source = source_model(variant)
        own = folder / str(variant).replace("+", "_with_")
        own.mkdir()
        if source.length and not is_defined(source.model.scheme, LENGTH):
            source = SourceModel("", "", source.model, source.scheme, source.extension, TRAIN_LEN, TRAIN_LEN)
        write_model(source, own, bos=0)
        model = source.extended()
        count = LENGTH if is_defined(model.scheme, LENGTH) else TRAIN_LEN
        ids = torch.randint(1, VOCABULARY, (2, count), generator=torch.Generator().manual_seed(1))
        expected = {"ids": ids}
        for name, tokens in (("whole", count), ("part", count // 2)):
            declared = max(source.length or 0, tokens)
            with torch.no_grad():
                expected[name] = model.head(model(ids[:, :tokens], length=declared)[0])
            assert expected[name].isfinite().all()
        save_file(expected, own / "expected.safetensors")
    out = folder / "report.json"
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [sys.executable, str(LOAD), str(folder), str(out)], check=True, env=environment, cwd=folder
    )
    wrong = json.loads(out.read_text())
    assert not wrong, wrong


def test_every_scheme_and_extension_is_exported(tmp_path):
    """Logits in float32 are equal to the bit, and a cache and padding change no generated token."""
    assert {variant.extension for variant in ONE_OF_EACH} == set(EXTENSIONS)
    export_and_load([*ALONE, *ONE_OF_EACH], tmp_path)
