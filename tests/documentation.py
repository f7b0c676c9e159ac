"""The pages of the documentation, their code blocks, and a shell that runs their commands in this process."""

import gzip
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from posbench import commands
from posbench.commands.catalog import choice
from posbench.plan.cost import COUNTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
FENCE = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SWEPT = ("fixed_targets", "non_overlapping", "prefix")
# Settings of a model whose training takes no time.
TINY = (
    *("size.n_layers=1", "size.d_model=16", "size.n_heads=2"),
    *("train.steps=2", "train.batch_size=2", "train.val_interval=2", "train.val_batches=1"),
)
SEARCH = (
    *("search.population=3", "search.parents=2", "search.iterations=1"),
    *("search.mutations=1", "search.crossovers=1"),
)
MODEL = ("scheme", "size", "data", "train", "allow")  # groups of the settings that name a model


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

    @property
    def commands(self) -> list[str]:
        """The commands of a bash block, without comments."""
        lines = [line.strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return (
            [line for line in lines if line and not line.startswith("#")] if self.language == "bash" else []
        )


def blocks(page: Path) -> Iterator[Block]:
    """Yields the code blocks of a page in order."""
    for indent, language, info, text in FENCE.findall(page.read_text()):
        yield Block(language, info.strip(), re.sub(f"^{indent}", "", text, flags=re.MULTILINE))


class Shell:
    """Runs `posbench` and `python FILE` in this process, in one folder, without a mirror of results.

    Args:
        cache: folder of corpora, which tests share.
        tiny: makes models and evaluations so small that they take no time.
        sweeps: runs sweeps, where false plans them only.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, tiny: bool, sweeps: bool = True
    ) -> None:
        self.folder, self.monkeypatch, self.tiny, self.sweeps = folder, monkeypatch, tiny, sweeps
        self.runtime = [f"runtime.cache_dir={cache}", "runtime.launcher=inline", "runtime.tracker=none"]
        self.pretrained = folder / "pretrained"
        monkeypatch.chdir(folder)

    def follow(self, page: str) -> None:
        """Writes every file of a page and runs every command, but for the blocks that say no-run."""
        for block in blocks(ROOT / page):
            if block.file:
                (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / block.file).write_text(block.text)
            for command in block.commands:
                (check_unrun if block.info.startswith("no-run: ") else self.run)(command)

    def run(self, command: str) -> None:
        """Runs one command; raises AssertionError if it fails, or if it is of another kind."""
        words = shlex.split(command, comments=True)
        match words:
            case ["export", "PYTHONPATH=."]:
                self.monkeypatch.syspath_prepend(self.folder)
            case ["python", file]:
                runpy.run_path(str(self.folder / file), run_name="__main__")
            case ["posbench", name, *rest]:
                posbench(name, *self.arguments(name, rest))
            case _:
                raise AssertionError(f"no way to run {command!r}: mark its block with no-run: and a reason")

    def arguments(self, name: str, given: list[str]) -> list[str]:
        """Returns the arguments of a command as the test runs it."""
        if name not in ("train", "evaluate", "search", "sweep"):
            return given
        if not self.tiny:
            return [*given, *self.runtime]
        if "lm=hugging_face" in given:
            return [*self.of_pretrained(given), *few(given), *self.runtime]
        if name in ("evaluate", "search"):  # the page trains the model, or says that it is there
            model = [one for one in given if one.partition("=")[0].partition(".")[0] in MODEL]
            posbench("train", *model, *TINY, *self.runtime)
        if name == "sweep" and not self.sweeps:
            return [*given, *([] if "--dry-run" in given else ["--dry-run"]), *self.runtime]
        if name == "search":
            return [*given, *TINY, *few(given), *SEARCH, self.runtime[0]]
        if name == "sweep":
            fewer = [
                f"++evaluate.{task}.settings.num_examples=2" for task in SWEPT if "experiment=demo" in given
            ]
            return [*given, *TINY, *fewer, *self.runtime]
        return [*given, *TINY, *(few(given) if name == "evaluate" else []), *self.runtime]

    def of_pretrained(self, given: list[str]) -> list[str]:
        """Returns the arguments with a tiny pretrained model and short texts in place of those of the hub."""
        length = 2048 if "task=passkey" in given else 1024 if "task=variable_tracking" in given else 256
        kept = [one for one in given if not one.startswith(("data=", "lm.name="))]
        texts = ["data=files", f"data.path={self.folder / 'texts'}", "data.num_keys=20"]
        return [*kept, f"lm.name={self.pretrained}", f"lm.train_len={length}", *texts]

    def forget(self) -> None:
        """Removes the modules that were imported from the folder."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]


def posbench(*arguments: str) -> None:
    """Runs a command in this process; raises AssertionError if it fails."""
    GlobalHydra.instance().clear()
    try:
        status = commands.run(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 0, arguments


def few(given: list[str]) -> list[str]:
    """Returns overrides for the fewest prompts of the task of a command."""
    tasks = [one.removeprefix("task=") for one in given if one.startswith("task=")]
    build = choice("task", (tasks or ["fixed_targets"])[0]).content["build"]
    return [f"task.build.{name}={2 if name == 'num_positions' else 1}" for name in COUNTS if name in build]


def check_unrun(command: str) -> None:
    """Raises AssertionError for a command that cannot be run here and that is not there: its settings compose at least."""
    words = shlex.split(command, comments=True)
    if words[0] == "torchrun":
        script = next(word for word in words if word.endswith(".py"))
        assert (ROOT / script).is_file(), command
        words = ["posbench", Path(script).stem, *words[words.index(script) + 1 :]]
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        case ["pip", "install", "-e", extra]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert extra in [f".[{name}]" for name in project["optional-dependencies"]], command
        case ["source", ".venv/bin/activate"]:
            pass
        case ["posbench", ("train" | "evaluate" | "sweep") as name, *rest]:
            posbench(name, *rest, "--cfg", "job")
        case ["posbench", name, *_]:
            assert name in commands.COMMANDS, command
        case _:
            raise AssertionError(f"unknown command {command!r}")


def write_questions(path: Path) -> None:
    """Writes three questions with 20 passages each, in the format of task multi_document."""
    passages = [
        {"title": f"Title {index}", "text": f"Text {index}.", "isgold": index == 0} for index in range(20)
    ]
    question = {"question": "Which text?", "answers": ["Text 0"], "ctxs": passages}
    path.write_bytes(gzip.compress("\n".join([json.dumps(question)] * 3).encode()))
