"""Laws of source files: a scheme is one short file that cites its paper, one yaml, and is named nowhere else.

Code that tests for a scheme by name would treat it differently from a scheme that a user adds.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from variants import CONFIGS, EXTENSIONS, PACKAGE, SCHEMES

from posbench.instantiate import locate, registered_name

TARGETS = {
    **{("scheme", name): settings for name, settings in SCHEMES.items()},
    **{("extension", name): settings for name, settings in EXTENSIONS.items()},
}
each_target = pytest.mark.parametrize(("group", "name"), TARGETS, ids="-".join)


def parts(group: str, name: str) -> list[dict[str, Any]]:
    """Returns the settings of the scheme, or of every member of a composition."""

    def within(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict) and "_target_" in value:
            yield value
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from within(inner)

    return [
        one
        for one in within(TARGETS[group, name])
        if not one["_target_"].startswith("posbench.position.compose.")
    ]


def file_of(target: str) -> Path:
    file = inspect.getsourcefile(locate(target))
    assert file is not None
    return Path(file)


@each_target
def test_file_is_short_and_cites_its_paper(group: str, name: str) -> None:
    for part in parts(group, name):
        text = file_of(part["_target_"]).read_text()
        assert sum(bool(line.strip()) for line in text.splitlines()) < 80
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring is not None
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|https://", docstring), "no arXiv id and no address"
        assert docstring.splitlines()[0].endswith("."), "the first line is a sentence"


@each_target
def test_class_docstring_has_the_formula(group: str, name: str) -> None:
    for part in parts(group, name):
        assert inspect.getdoc(locate(part["_target_"])), "the class docstring is the formula"


@each_target
def test_yaml_lists_every_setting_with_its_default(group: str, name: str) -> None:
    """Every setting can then be overridden by name, and the yaml documents the scheme."""
    content = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    assert set(content) == {"name", "build"}
    assert content["name"] == name
    whole = content["build"]
    for part in [whole, *parts(group, name)]:
        given = {key: value for key, value in part.items() if key != "_target_"}
        parameters = inspect.signature(locate(part["_target_"])).parameters
        first = 1 if group == "scheme" else 2  # skips the shape, or the inner scheme and the context
        defaults = {key: parameter.default for key, parameter in list(parameters.items())[first:]}
        required = any(default is inspect.Parameter.empty for default in defaults.values())
        # A variant of a scheme, or a member of a composition, exists to set other values.
        if required or part is not whole or part["_target_"].split(".")[-2] != name:
            assert set(given) == set(defaults)
        else:
            assert given == defaults


def names_in(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Returns the identifiers and the string constants of a module, without docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    identifiers, strings = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            identifiers.add(node.id)
        elif isinstance(node, ast.Attribute):
            identifiers.add(node.attr)
        elif isinstance(node, ast.alias):
            identifiers.update((node.name.rpartition(".")[2], node.asname or ""))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            strings.add(node.value)
    return identifiers, strings


# Names that files other than their own may contain, with the reason.
ALLOWED = {
    # The speed goal compares this scheme with other implementations of it.
    "posbench/benchmark/models.py": {"posbench.schemes.rope.RoPE"},
    # Extensions are pictured around this scheme.
    "posbench/properties/report.py": {"posbench.schemes.rope.RoPE"},
    # Read the scheme and its scaling from the configuration of a pretrained model.
    "posbench/lm/hf_positions.py": {
        "posbench.schemes.rope.RoPE",
        "posbench.schemes.partial_rope.PartialRoPE",
        "posbench.schemes.nope.NoPE",
        "posbench.schemes.learned.Learned",
        "posbench.schemes.learned_sink.LearnedSink",
        "posbench.schemes.window.Window",
        "gpt_oss",
    },
    "posbench/lm/hf_rope_scaling.py": {
        "posbench.extensions.pi.PositionInterpolation",
        "posbench.extensions.dynamic_ntk.DynamicNTK",
        "posbench.extensions.yarn.YaRN",
        "posbench.extensions.llama3.Llama3",
        "posbench.extensions.longrope.LongRoPE",
    },
    # Keys of configurations and names of weights, by the name of a pretrained family, which a recipe may share.
    "posbench/lm/hf_families.py": {"gpt_oss", "olmo3", "smollm3"},
    "posbench/lm/hf_weights.py": {"gpt_oss", "olmo3"},
    # New names beside the names that they replaced, for error messages.
    "posbench/renamed.py": {"fox", "linear_attention", "linear_attention_rope", "rnope", "swan"},
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_no_other_file_names_a_scheme(source: Path) -> None:
    """Neither by its class, nor by its name as a string, nor by its module."""
    here = source.relative_to(PACKAGE.parent).as_posix()
    identifiers, strings = names_in(ast.parse(source.read_text()))
    for target in {part["_target_"] for key in TARGETS for part in parts(*key)}:
        module, _, cls = target.rpartition(".")
        if file_of(target) == source:
            continue
        named = cls in identifiers or any(text.startswith(module) for text in strings)
        assert named == (target in ALLOWED.get(here, ())), (
            f"{here} names {target}, or no longer does and is still in ALLOWED"
        )
    for group, name in TARGETS:
        # Names of extensions are also names of settings, such as window.
        if group == "scheme" and name not in EXTENSIONS:
            own = {file_of(part["_target_"]) for part in parts(group, name)}
            allowed = source in own or name in ALLOWED.get(here, ())
            assert name not in strings or allowed, f"{here} names {name}"


def test_every_class_has_a_unique_registered_name() -> None:
    """Identities hash registered names; without one they would hash the import path, which changes with a move."""
    targets = {one["_target_"] for key in TARGETS for one in parts(*key)}
    for group in ("task", "ensemble"):
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            build = yaml.safe_load(file.read_text())["build"]
            targets |= {build["_target_"]} if build else set()
    names = {target: registered_name(target) for target in targets}
    assert [target for target, name in names.items() if name == target] == []
    assert len(set(names.values())) == len(names)
