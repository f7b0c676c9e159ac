"""What a scheme is as source: one short file with its paper, one yaml, and nobody else who knows its name."""

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
    """The settings of every part that has a file of its own: one, or the members of a composition."""

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
def test_a_file_is_short_and_names_its_paper(group: str, name: str) -> None:
    for part in parts(group, name):
        text = file_of(part["_target_"]).read_text()
        assert sum(bool(line.strip()) for line in text.splitlines()) < 80
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring is not None
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|https://", docstring), "no arXiv number and no address"
        assert docstring.splitlines()[0].endswith("."), "the first line says what it is"


@each_target
def test_a_class_says_its_formula(group: str, name: str) -> None:
    for part in parts(group, name):
        assert inspect.getdoc(locate(part["_target_"])), "the class docstring is the formula"


@each_target
def test_a_yaml_lists_every_setting_with_its_default(group: str, name: str) -> None:
    """So that any of them can be overridden by name, and reading the yaml is reading the scheme."""
    content = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    assert set(content) == {"name", "build"}
    assert content["name"] == name
    whole = content["build"]
    for part in [whole, *parts(group, name)]:
        given = {key: value for key, value in part.items() if key != "_target_"}
        parameters = inspect.signature(locate(part["_target_"])).parameters
        first = 1 if group == "scheme" else 2  # the shape; the inner scheme and the context
        defaults = {key: parameter.default for key, parameter in list(parameters.items())[first:]}
        required = any(default is inspect.Parameter.empty for default in defaults.values())
        # A variant of a scheme, or a member of a composition, is there for what it sets otherwise.
        if required or part is not whole or part["_target_"].split(".")[-2] != name:
            assert set(given) == set(defaults)
        else:
            assert given == defaults


def names_in(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Identifiers and whole string constants of a module, its docstrings left out."""
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


# What a file may name that is not its own, and why.
ALLOWED = {
    # The speed goal is stated for this scheme beside its peers.
    "posbench/benchmark/models.py": {"posbench.schemes.rope.RoPE"},
    # The configuration of a pretrained model names its scheme and its scaling, and this is where that is read.
    "posbench/lm/hf_positions.py": {
        "posbench.schemes.rope.RoPE",
        "posbench.schemes.nope.NoPE",
        "posbench.schemes.window.Window",
        "posbench.extensions.pi.PositionInterpolation",
        "posbench.extensions.dynamic_ntk.DynamicNTK",
        "posbench.extensions.yarn.YaRN",
        "posbench.extensions.llama3.Llama3",
        "posbench.extensions.longrope.LongRoPE",
        "linear",  # transformers' name for position interpolation
    },
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_nobody_else_asks_for_a_scheme(source: Path) -> None:
    """Not by its class, not by its name in quotes, not by its module: in no file but its own."""
    here = source.relative_to(PACKAGE.parent).as_posix()
    identifiers, strings = names_in(ast.parse(source.read_text()))
    for target in {part["_target_"] for key in TARGETS for part in parts(*key)}:
        module, _, cls = target.rpartition(".")
        if file_of(target) == source:
            continue
        asks = cls in identifiers or any(text.startswith(module) for text in strings)
        assert asks == (target in ALLOWED.get(here, ())), (
            f"{here} asks for {target}, or no longer does and is allowed to"
        )
    for group, name in TARGETS:
        # Names of extensions are also names of settings, such as a window.
        if group == "scheme" and name not in EXTENSIONS:
            own = {file_of(part["_target_"]) for part in parts(group, name)}
            allowed = source in own or name in ALLOWED.get(here, ())
            assert name not in strings or allowed, f"{here} asks for {name}"


def test_every_class_has_a_registered_name_of_its_own() -> None:
    """Identities hash registered names: a class without one would be known by its import path."""
    targets = {one["_target_"] for key in TARGETS for one in parts(*key)}
    for group in ("task", "ensemble"):
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            build = yaml.safe_load(file.read_text())["build"]
            targets |= {build["_target_"]} if build else set()
    names = {target: registered_name(target) for target in targets}
    assert [target for target, name in names.items() if name == target] == []
    assert len(set(names.values())) == len(names)
