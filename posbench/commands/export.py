"""Writes a model as a folder of Hugging Face, which transformers and its tools load without posbench.

The folder has the configuration, the weights, the tokenizer, a model card with the model's own figures, and, unless the
model is one of transformers' own families, the Python files that compute it: copies of posbench's.

MODEL is a folder in results/models or its name, which is the id in the rows; or a pretrained model that posbench
converts, by its folder or its name on the hub.

examples:
  posbench export results/models/6003f50773dc4784 --to exported
  posbench export 6003f50773dc4784 --to exported --extension yarn --length 256 --set temperature=0.2
  posbench export HuggingFaceTB/SmolLM2-135M --to exported --extension self_extend --length 8192
  posbench export 6003f50773dc4784 --to exported --push USER/NAME
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from posbench.commands import checks
from posbench.config.schema import ExtensionSettings, LMSettings
from posbench.config.validation import check_option
from posbench.errors import ConfigError, DataError, unknown
from posbench.files import atomic_path
from posbench.hub import check_repository, push_folder
from posbench.instantiate import allow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a folder in results/models, its name, or a pretrained model")
    parser.add_argument("--to", type=Path, required=True, help="the folder to write, new or empty")
    parser.add_argument("--extension", default="", help="a context extension around the model")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the extension in place of its file's",
    )
    parser.add_argument(
        "--length",
        type=int,
        help="declared length of texts in tokens: of an extension, and of schemes that depend on it",
    )
    parser.add_argument(
        "--own-code",
        action="store_true",
        help="write posbench's Python files also for a model of transformers' own families",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights of a pretrained model, by default float32",
    )
    parser.add_argument(
        "--revision", default="", help="of a pretrained model on the hub: a commit, branch or tag"
    )
    parser.add_argument(
        "--licence", default="", help="of the weights; by default apache-2.0, or other if pretrained"
    )
    parser.add_argument("--push", default="", metavar="USER/NAME", help="also upload the folder to the hub")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="by default results")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=Path(".cache/posbench"),
        help="of corpora; by default .cache/posbench",
    )
    parser.add_argument(
        "--allow",
        nargs="+",
        action="extend",
        default=[],
        help="packages outside posbench whose classes the model has",
    )


def main(arguments: Sequence[str]) -> int:
    from posbench.commands.arguments import parser

    given = parser("export").parse_args(arguments)
    check_empty(given.to)
    if given.push:
        check_repository(given.push)
    if given.length is not None and given.length < 1:
        raise ConfigError(f"--length {given.length}: give a number of tokens, 1 or more")
    allow(given.allow)
    extension = chosen_extension(given.extension, given.set)
    trained = trained_folder(given.model, given.results_dir)
    if trained is not None and (given.dtype or given.revision):
        raise ConfigError(
            f"--dtype and --revision are of pretrained models, and {trained} was trained here: remove them"
        )
    from posbench.export.export import export_model
    from posbench.export.source_model import load_pretrained, load_trained

    if trained is not None:
        source = load_trained(trained, extension, given.length)
    else:
        try:
            lm = LMSettings(
                "hugging_face", name=given.model, revision=given.revision, dtype=given.dtype or "float32"
            )
            source = load_pretrained(lm, extension, given.length)
        except DataError as error:
            if Path(given.model).exists():
                raise
            raise DataError(f"no folder {given.results_dir / 'models' / given.model}, and {error}") from None
    command = shlex.join(["posbench", "export", *arguments])
    with atomic_path(given.to) as folder:
        folder.mkdir()
        family = export_model(
            source,
            folder,
            results_dir=trained.parents[1] if trained else given.results_dir,
            cache_dir=given.cache_dir,
            licence=given.licence,
            command=command,
            own_code=given.own_code,
        )
    trust = "" if family != "posbench" else ", trust_remote_code=True"
    print(f'{source.label}: AutoModelForCausalLM.from_pretrained("{given.to}"{trust}), model type {family}')
    if given.push:
        print(push_folder(given.to, given.push, "model"))
    return 0


def check_empty(folder: Path) -> None:
    """Raises ConfigError if there is something at a path in whose place a model would be written."""
    if not folder.name:
        raise ConfigError(f"--to {folder}: give a folder by its name, such as {folder / 'exported'}")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigError(f"--to {folder} is not empty: give a new folder, or remove it first")


def trained_folder(model: str, results_dir: Path) -> Path | None:
    """Returns the folder of a model of posbench train, or None for a pretrained one.

    Raises:
        ConfigError: if its training is not finished.
    """
    given = Path(model)
    for folder in (given.parent if given.name == "final" else given, results_dir / "models" / model):
        if (folder / "config.json").exists() or not folder.is_dir():
            continue
        if not (folder / "final").is_dir():
            raise ConfigError(
                f"{folder} has no finished model: run posbench train with the same settings, which continues from its "
                "last checkpoint"
            )
        return folder.absolute()
    return None


def chosen_extension(name: str, settings: Sequence[str]) -> ExtensionSettings:
    """Returns the settings of an extension by name; raises ConfigError for a name or setting that does not exist."""
    if not name:
        if settings:
            raise ConfigError(f"--set {settings[0]} without an extension: name one by --extension")
        return ExtensionSettings()
    from posbench.config.hydra_app import load_group

    options = load_group("extension")
    if name in load_group("ensemble") and name != "none":
        return ExtensionSettings(name, ensemble=load_group("ensemble")[name]["build"])
    if name not in options:
        raise unknown("extension", name, options)
    content: dict[str, Any] = options[name]
    if settings and content["build"] is None:
        raise ConfigError(
            f"--set {settings[0]} changes nothing with --extension {name}: name another extension"
        )
    for one in settings:
        key, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--set {one!r}: write KEY=VALUE, such as factor=4")
        try:
            (content if key == "layers" else content["build"])[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {one!r}: the value cannot be read as yaml") from None
    check_option(f"extension/{name}.yaml", content, ExtensionSettings)
    extension = ExtensionSettings(**content)
    checks.check_extension(extension)
    return extension
