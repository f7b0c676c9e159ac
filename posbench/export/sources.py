"""Copies of modules with relative imports, as transformers loads them from the folder of a model.

The folder is flat: posbench/position/attention.py becomes position_attention.py. Modules are found by their imports,
beginning with those of the model and of the classes in its settings, and are changed in their imports alone.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from posbench.errors import ConfigError
from posbench.instantiate import locate

ENTRY = "posbench.export.modeling_posbench"
TARGETS = "posbench.export.targets"


def modeling_files(targets: Iterable[str]) -> dict[str, str]:
    """Returns file name -> text of every module that a model needs.

    Args:
        targets: dotted paths of the classes in its settings.

    Raises:
        ConfigError: if a class has no source file, or two modules would have one name.
    """
    targets = set(targets)
    classes = {path: locate(path) for path in sorted(targets)}
    modules = {path: one.__module__ for path, one in classes.items()}
    roots = packages(targets)
    files: dict[str, str] = {}
    written = {file_name(TARGETS): TARGETS}
    waiting = [ENTRY, *modules.values()]
    while waiting:
        module = waiting.pop()
        file = file_name(module)
        if written.setdefault(file, module) != module:
            raise ConfigError(
                f"modules {module} and {written[file]} would both be {file} in the folder, which is flat: rename one "
                "that is not posbench's"
            )
        if file not in files and module != TARGETS:
            files[file], imported = _with_relative_imports(module, source(module), roots)
            waiting += imported
    files[file_name(TARGETS)] = targets_text(
        {path: (modules[path], classes[path].__qualname__) for path in modules}
    )
    return dict(sorted(files.items()))


def packages(targets: Iterable[str]) -> frozenset[str]:
    """Returns the packages whose modules are copied: posbench, and those of the classes in the settings."""
    return frozenset({"posbench", *(locate(path).__module__.partition(".")[0] for path in targets)})


def third_party(files: dict[str, str]) -> list[str]:
    """Returns the packages that the files import, besides Python's own, torch and transformers."""
    names = set()
    for text in files.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {one.name.partition(".")[0] for one in node.names}
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
    names -= {*sys.stdlib_module_names, "torch", "transformers"}
    known = packages_distributions()
    return sorted({known.get(name, [name])[0] for name in names})


def file_name(module: str) -> str:
    """Returns the file of a module in the folder: its dotted path without posbench, joined by underscores."""
    return f"{module_name(module)}.py"


def module_name(module: str) -> str:
    """Returns the name of a module in the folder."""
    return module.removeprefix("posbench.").removeprefix("export.").replace(".", "_")


def source(module: str) -> str:
    """Returns the text of a module; raises ConfigError if it has no source file."""
    loaded = sys.modules.get(module)
    try:
        spec = importlib.util.find_spec(module) if loaded is None else loaded.__spec__
    except (ImportError, ValueError):
        spec = None
    path = Path(spec.origin) if spec and spec.origin else None
    if path is None or path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"module {module} has no source file, which an exported model needs: put its classes into a .py file that can "
            "be imported"
        )
    return path.read_text("utf-8")


@cache
def _with_relative_imports(module: str, text: str, roots: frozenset[str]) -> tuple[str, list[str]]:
    """Returns the text of a module with relative imports in place of those from `roots`, and the modules it imports."""
    lines, imported = text.splitlines(keepends=True), []
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in sorted(found, key=lambda node: node.lineno, reverse=True):
        if isinstance(node, ast.Import):
            for one in node.names:
                if one.name.partition(".")[0] in roots:
                    raise ConfigError(
                        f"module {module}, line {node.lineno}: `import {one.name}` cannot be exported; write `from "
                        f"{one.name} import NAME`"
                    )
            continue
        origin = absolute(module, node)
        if origin.partition(".")[0] not in roots:
            continue
        for one in node.names:
            if one.name == "*" or is_module(f"{origin}.{one.name}"):
                raise ConfigError(
                    f"module {module}, line {node.lineno}: `{ast.unparse(node)}` cannot be exported; import names from "
                    "the module instead"
                )
        imported.append(origin)
        changed = ast.ImportFrom(module_name(origin), node.names, 1)
        indent = " " * node.col_offset
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{ast.unparse(changed)}\n"]
    return "".join(lines), imported


def absolute(module: str, node: ast.ImportFrom) -> str:
    """Returns the dotted path of the module that an import names; `module` is the one it stands in."""
    if not node.level:
        return node.module or ""
    parent = module.split(".")[: -node.level]
    return ".".join([*parent, *([node.module] if node.module else [])])


def is_module(path: str) -> bool:
    """Returns whether a dotted path is a module."""
    try:
        return importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


def targets_text(classes: dict[str, tuple[str, str]]) -> str:
    """Returns the text of the module of targets, from dotted path -> (module, name of the class)."""
    lines = ['"""Classes of the settings in config.json by their dotted paths in posbench."""\n']
    entries = []
    for index, (path, (module, name)) in enumerate(classes.items()):
        lines.append(f"from .{module_name(module)} import {name} as class_{index}")
        entries.append(f"    {path!r}: class_{index},")
    return "\n".join([*lines, "\nTARGETS = {", *entries, "}\n"])
