"""The pages of the documentation, their code blocks, and a shell that runs their commands in this process."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from posbench import commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
FENCE = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
HYDRA = ("train", "evaluate", "sweep", "search", "figures", "properties")
RUNTIME = ("train", "evaluate", "sweep", "search")


@dataclass(frozen=True)
class Block:
    """A code block: its language, the rest of its first line, such as "no-run: needs a GPU", and its text."""

    language: str
    info: str
    text: str

    @property
    def file(self) -> str:
        """The file that a first line `# FOLDER/NAME.py` or `.yaml` names, "" for a block that is none."""
        named = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return named[1] if named and self.language in ("python", "yaml") else ""


def blocks(page: Path) -> Iterator[Block]:
    """Yields the code blocks of a page in order."""
    for indent, language, info, text in FENCE.findall(page.read_text()):
        yield Block(language, info.strip(), re.sub(f"^{indent}", "", text, flags=re.MULTILINE))


def commands_of(block: Block) -> list[str]:
    """Returns the commands of a bash block, without comments."""
    text = block.text.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class Shell:
    """Runs `posbench` and `python FILE` in this process, in one folder.

    Args:
        overrides: command -> overrides added to each of its calls, such as a folder of corpora that tests share.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, list[str]]
    ) -> None:
        self.folder, self.monkeypatch, self.overrides = folder, monkeypatch, overrides
        monkeypatch.chdir(folder)

    def write(self, block: Block) -> None:
        """Writes the file of a block."""
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def run(self, command: str) -> None:
        """Runs one command; raises AssertionError if it fails, or if it is of another kind."""
        words = shlex.split(command, comments=True)
        match words:
            case ["export", "PYTHONPATH=."]:
                self.monkeypatch.syspath_prepend(self.folder)
            case ["python", file]:
                runpy.run_path(str(self.folder / file), run_name="__main__")
            case ["posbench", name, *rest]:
                GlobalHydra.instance().clear()
                try:
                    status = commands.run([name, *rest, *self.overrides.get(name, [])])
                except SystemExit as ended:
                    status = int(ended.code or 0)
                assert status == 0, command
            case _:
                raise AssertionError(f"no way to run {command!r}: mark its block with no-run and a reason")

    def forget(self) -> None:
        """Removes the modules that were imported from the folder."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]
