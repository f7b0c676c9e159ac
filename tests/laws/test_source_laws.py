"""What a scheme is as source: one short file with its paper, one yaml, and nobody else who knows its name."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import yaml
from variants import CONFIGS, EXTENSIONS, PACKAGE, SCHEMES

from posbench.build import locate

TARGETS = {
    **{("scheme", name): settings for name, settings in SCHEMES.items()},
    **{("extension", name): settings for name, settings in EXTENSIONS.items()},
}
each_target = pytest.mark.parametrize(("group", "name"), TARGETS, ids="-".join)


def own_file(group: str, name: str) -> Path:
    settings = TARGETS[group, name]
    assert settings is not None
    file = inspect.getsourcefile(locate(settings["_target_"]))
    assert file is not None
    return Path(file)


@each_target
def test_a_file_is_short_and_names_its_paper(group: str, name: str) -> None:
    text = own_file(group, name).read_text()
    assert len(text.splitlines()) < 80
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring is not None
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|https://", docstring), "no arXiv number and no address"
    assert docstring.splitlines()[0].endswith("."), "the first line says what it is"


@each_target
def test_a_class_says_its_formula(group: str, name: str) -> None:
    settings = TARGETS[group, name]
    assert settings is not None
    assert inspect.getdoc(locate(settings["_target_"])), "the class docstring is the formula"


@each_target
def test_a_yaml_lists_every_setting_with_its_default(group: str, name: str) -> None:
    """So that any of them can be overridden by name, and reading the yaml is reading the scheme."""
    content = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    assert set(content) == {"name", "build"}
    assert content["name"] == name
    given = {key: value for key, value in content["build"].items() if key != "_target_"}
    parameters = inspect.signature(locate(content["build"]["_target_"])).parameters
    first = 1 if group == "scheme" else 2  # the shape; the inner scheme and the context
    defaults = {key: parameter.default for key, parameter in list(parameters.items())[first:]}
    if all(default is not inspect.Parameter.empty for default in defaults.values()):
        assert given == defaults
    else:
        assert set(given) == set(defaults)


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


# Files that may name one scheme, and why.
ALLOWED = {
    ("posbench/benchmark/models.py", "rope"),  # the speed goal is stated for this scheme beside its peers
}
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_nobody_else_asks_for_a_scheme(source: Path) -> None:
    """Not by its class, not by its name in quotes, not by its module: in no file but its own."""
    here = source.relative_to(PACKAGE.parent).as_posix()
    identifiers, strings = names_in(ast.parse(source.read_text()))
    for (group, name), settings in TARGETS.items():
        assert settings is not None
        module, _, cls = settings["_target_"].rpartition(".")
        if own_file(group, name) == source:
            continue
        asks = cls in identifiers or any(text.startswith(module) for text in strings)
        # Names of extensions are also names of settings, such as a window.
        asks |= group == "scheme" and name in strings
        assert asks == ((here, name) in ALLOWED), (
            f"{here} asks for {name}, or no longer does and is allowed to"
        )
