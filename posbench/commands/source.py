"""Reads the classes and functions that configurations name from their source text, without importing them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, Union

from posbench.errors import ConfigError

# Names that annotations of settings use.
TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple)},
    **{
        "Any": Any,
        "Mapping": Mapping,
        "Sequence": Sequence,
        "Literal": Literal,
        "Optional": Optional,
        "Union": Union,
    },
}
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Definition:
    """A class or function in its file.

    Attributes:
        path: the file.
        module_doc: docstring of the module, "" without one.
        node: the definition.
        tree: the module.
    """

    path: Path
    module_doc: str
    node: ast.ClassDef | ast.FunctionDef
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def doc(self) -> str:
        """Docstring of the class or function, "" without one."""
        return ast.get_docstring(self.node) or ""

    @property
    def module(self) -> str:
        """Last part of the module's name."""
        return self.path.stem

    def bases(self) -> Iterator[Definition]:
        """Yields the classes that this one derives from, as far as their source is found."""
        if isinstance(self.node, ast.ClassDef):
            for base in self.node.bases:
                if isinstance(base, ast.Name) and (found := self._named(base.id)):
                    yield found

    def mro(self) -> list[Definition]:
        """Returns the class and all its bases, nearest first."""
        return [self, *(one for base in self.bases() for one in base.mro())]

    def methods(self) -> dict[str, ast.FunctionDef]:
        """Returns the methods of the class body by name."""
        return {node.name: node for node in self.node.body if isinstance(node, ast.FunctionDef)}

    def constants(self) -> dict[str, Any]:
        """Returns the class attributes with a constant value, those of the bases included."""
        assignments = [
            node for one in reversed(self.mro()) for node in one.node.body if isinstance(node, ast.Assign)
        ]
        return {
            target.id: node.value.value
            for node in assignments
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant)
        }

    def parameters(self) -> dict[str, ast.expr | None] | None:
        """Returns the parameters of the constructor or function and their defaults, None where the source is not enough.

        That is so for `**keywords`, and where the constructor belongs to a base class whose source is not found.
        """
        if isinstance(self.node, ast.FunctionDef):
            return _parameters(self.node)
        if (init := self.methods().get("__init__")) is not None:
            found = _parameters(init)
            return found and dict(list(found.items())[1:])  # without self
        first = self.node.bases[0] if self.node.bases else None
        base = self._named(first.id) if isinstance(first, ast.Name) else None
        return base.parameters() if base else None

    def annotations(self) -> dict[str, Any]:
        """Types of the parameters of the constructor or function, as far as the source shows them; else Any."""
        for one in self.mro() if isinstance(self.node, ast.ClassDef) else [self]:
            function = one.methods().get("__init__") if isinstance(one.node, ast.ClassDef) else one.node
            if function is not None:
                given = function.args
                return {
                    argument.arg: one._type(argument.annotation)
                    for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]
                }
        return {}

    def _type(self, annotation: ast.expr | None) -> Any:
        """An annotation as a type. A class whose source is found becomes one that yaml has no values of."""
        if annotation is None:
            return Any
        names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
        classes = {name: type(name, (), {}) for name in names - TYPES.keys() if self._is_class(name)}
        try:
            return _evaluate(annotation, {**TYPES, **classes})
        except (KeyError, TypeError, ValueError):  # an annotation of other names or of another form
            return Any

    def _is_class(self, name: str) -> bool:
        found = self._named(name)
        return found is not None and isinstance(found.node, ast.ClassDef)

    def _named(self, name: str) -> Definition | None:
        """Finds the class of a name in this module, defined in it or imported from another."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return definition(f"{node.module}.{alias.name}")
        return _in_tree(self.path, self.tree, name)


@cache
def definition(target: str) -> Definition | None:
    """Finds the class or function at a dotted path; None where its source is not found."""
    module, _, name = target.rpartition(".")
    relative = Path(*module.split(".")).with_suffix(".py") if module else Path()
    for root in (PACKAGE.parent, *map(Path, sys.path)):
        if relative.name and (path := root / relative).is_file():
            return _in_tree(path, _tree(path), name)
    return None


def parts(build: Any) -> Iterator[dict[str, Any]]:
    """Yields every dictionary with a `_target_` in the settings that build an object, outermost first."""
    if isinstance(build, Mapping):
        if "_target_" in build:
            yield dict(build)
        build = list(build.values())
    if isinstance(build, list):
        for value in build:
            yield from parts(value)


@cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError) as error:  # of a file of the user
        raise ConfigError(f"{path} cannot be read ({error}): mend it, or choose another class") from None


def _in_tree(path: Path, tree: ast.Module, name: str) -> Definition | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(path, ast.get_docstring(tree) or "", node, tree)
    return None


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Returns the type that an annotation of these names means; calls nothing from the source."""
    match node:
        case ast.Name():
            return names[node.id]
        case ast.Constant():
            return node.value
        case ast.Tuple():
            return tuple(_evaluate(one, names) for one in node.elts)
        case ast.Subscript():
            return _evaluate(node.value, names)[_evaluate(node.slice, names)]
        case ast.BinOp(op=ast.BitOr()):
            return _evaluate(node.left, names) | _evaluate(node.right, names)
    raise ValueError(f"not an annotation of types: {ast.unparse(node)}")


def _parameters(function: ast.FunctionDef) -> dict[str, ast.expr | None] | None:
    given = function.args
    if given.kwarg is not None:
        return None
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    named = zip([*positional, *given.kwonlyargs], [*defaults, *given.kw_defaults], strict=True)
    return {argument.arg: default for argument, default in named}
