"""The documentation is true: its commands compose, its links exist, its lists and its picture match the code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import grimp
import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
HYDRA = ("train", "evaluate", "sweep", "figures", "reproductions", "properties")


def commands() -> list[str]:
    """Every posbench command with Hydra overrides in the code blocks of the documentation."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if "posbench" in words and words[words.index("posbench") + 1] in HYDRA:
                    found.append(line.strip())
    return found


def test_there_are_commands() -> None:
    assert len(commands()) >= 20


@pytest.mark.parametrize("command", commands())
def test_commands_compose(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("$PWD", str(tmp_path)), comments=True)
    words = words[words.index("posbench") + 1 :]
    (tmp_path / "my_configs").mkdir()
    run = [sys.executable, "-m", "posbench", *words, "--cfg", "job"]
    ended = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_reference_is_what_the_command_prints() -> None:
    """The grids of names were once written by hand and fell behind the configs."""
    run = [sys.executable, "-m", "posbench", "list", "--markdown"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    head = "# Schemes, extensions and tasks by name\n\nWritten by `posbench list --markdown`.\n\n"
    assert (ROOT / "docs" / "reference.md").read_text() == head + printed, "write the file again"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == linked


def test_the_picture_of_the_folders_is_the_import_graph() -> None:
    """Every import between folders follows from the arrows, and every arrow is an import."""
    graph = grimp.build_graph("posbench", cache_dir=None)
    imports = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = tuple(name.split(".")[1] if "." in name else "" for name in (module, imported))
            if all(pair) and pair[0] != pair[1] and pair[0] != "__main__":
                imports.add(pair)
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    picture = nx.DiGraph(drawn)
    assert nx.is_directed_acyclic_graph(picture)
    missing = [
        (a, b) for a, b in imports if a not in picture or b not in picture or not nx.has_path(picture, a, b)
    ]
    assert missing == []
    assert drawn - imports == set()
