"""Writes a model as a folder of transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from posbench.export import sources
from posbench.export.source_model import SourceModel
from posbench.lm.hf_loading import load_config

# Both in one module: transformers finds the class of a model by that of its configuration, which must not be the same
# for two folders of one name with different files.
AUTO_MAP = {
    "AutoConfig": "modeling_posbench.PosbenchConfig",
    "AutoModelForCausalLM": "modeling_posbench.PosbenchForCausalLM",
}


def targets(settings: Any) -> Iterator[str]:
    """Yields the dotted path of every class in nested settings."""
    if isinstance(settings, dict):
        if "_target_" in settings:
            yield settings["_target_"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for one in settings:
            yield from targets(one)


def config_json(source: SourceModel, vocab_size: int, bos: int | None) -> dict[str, Any]:
    """Returns the content of config.json of a model that needs the files in its folder."""
    return {
        "model_type": "posbench",
        "architectures": ["PosbenchForCausalLM"],
        "auto_map": AUTO_MAP,
        "architecture": asdict(source.model.architecture),
        "scheme": source.scheme,
        "extension": source.extension.build,
        "train_len": source.train_len,
        "length": source.length,
        "max_position_embeddings": source.length or source.train_len,
        "seed": source.seed,
        "vocab_size": vocab_size,
        "bos_token_id": bos,
        "dtype": str(source.model.embedding.weight.dtype).removeprefix("torch."),
    }


def end_ids(source: SourceModel, tokenizer: Any) -> dict[str, Any]:
    """Returns eos and pad of a pretrained model: of its generation settings, else its configuration, else its tokenizer."""
    assert source.pretrained is not None
    places = source.generation, load_config(source.pretrained.settings), tokenizer
    found: dict[str, Any] = {}
    for key in ("eos_token_id", "pad_token_id"):
        given = (getattr(one, key, None) for one in places)
        found[key] = next((one for one in given if one is not None), None)
    return found


def write_model(
    source: SourceModel, folder: Path, bos: int | None, ends: dict[str, Any] | None = None
) -> dict[str, str]:
    """Writes configuration, weights and modelling files; returns the latter, file name -> text.

    Args:
        bos: id at the start of a document.
        ends: eos_token_id and pad_token_id; None for `bos`, as in training.
    """
    model = source.extended()
    files = sources.modeling_files(targets([source.scheme, source.extension.build]))
    # Copies, because parameters of a scheme can share memory, which the format refuses.
    weights = {f"model.{name}": tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    if source.model.architecture.tie_embeddings:
        del weights["model.head.weight"]
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", config_json(source, len(model.embedding.weight), bos))
    ends = ends or {"eos_token_id": bos, "pad_token_id": bos}
    write_json(folder / "generation_config.json", {"bos_token_id": bos, **ends, "do_sample": False})
    return files


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
