"""Loads every exported model of a folder without posbench, and writes what is wrong with each to a JSON file."""

import json
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path


class Blocked:
    """Refuses to import posbench."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "posbench":
            raise ImportError("posbench is not installed here")


class Compiled(dict):
    """Code by source text: the folders have most files in common."""

    def __missing__(self, data):
        self[data] = compile(data, "<exported>", "exec", dont_inherit=True)
        return self[data]


sys.meta_path.insert(0, Blocked())
sys.dont_write_bytecode = True
COMPILED = Compiled()
SourceFileLoader.source_to_code = lambda self, data, path: COMPILED[bytes(data)]  # type: ignore[method-assign]

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

logging.disable_progress_bar()
NEW = 2


def faults(folder: Path) -> dict[str, str]:
    """Returns what is wrong with one model."""
    expected = load_file(folder / "expected.safetensors")
    ids = expected.pop("ids")
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    model = model.eval()
    found = {key: str(value) for key, value in report.items() if value}
    for name, logits in expected.items():
        with torch.no_grad():
            difference = float((model(ids[:, : logits.shape[1]]).logits - logits).abs().max())
        if difference != 0:
            found[name] = f"logits differ by {difference}"
    prompt = ids[:, :-NEW]
    options = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 0}
    short = prompt[1:, 5:]
    texts = [
        model.generate(one, attention_mask=torch.ones_like(one), use_cache=False, **options)[:, -NEW:]
        for one in (prompt[:1], short)
    ]
    cached = model.generate(prompt[:1], attention_mask=torch.ones_like(prompt[:1]), **options)[:, -NEW:]
    if not cached.equal(texts[0]):
        found["cache"] = f"{cached.tolist()} instead of {texts[0].tolist()}"
    padded, mask = prompt.clone(), torch.ones_like(prompt)
    padded[1, :5], mask[1, :5] = 0, 0
    batch = model.generate(padded, attention_mask=mask, **options)[:, -NEW:]
    if not batch.equal(torch.cat(texts)):
        found["padding"] = f"{batch.tolist()} instead of {torch.cat(texts).tolist()}"
    return found


root, out = map(Path, sys.argv[1:])
wrong = {}
for folder in sorted(root.iterdir()):
    if (folder / "config.json").exists():
        try:
            if found := faults(folder):
                wrong[folder.name] = found
        except Exception as error:
            wrong[folder.name] = {"raises": f"{type(error).__name__}: {error}"}
assert "posbench" not in sys.modules
out.write_text(json.dumps(wrong, indent=1))
