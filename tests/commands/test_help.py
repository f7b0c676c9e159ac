"""Help and mistakes of the command line: written for a newcomer, one line for a mistake."""

import re
import shlex

import pytest

from posbench.commands import COMMANDS, load
from posbench.config.keys import SCHEMAS


def test_without_a_command_all_are_shown(posbench):
    for arguments in ((), ("-h",), ("--help",)):
        status, out, _ = posbench(*arguments)
        assert status == 0
        assert [name for name in COMMANDS if not re.search(rf"^  {name} +\w", out, re.MULTILINE)] == []
    assert posbench("--version")[1].startswith("posbench 0.")


@pytest.mark.parametrize("name", SCHEMAS)
def test_help_of_a_command_with_settings(posbench, name):
    status, out, _ = posbench(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: posbench {name} [KEY=VALUE ...]")
    assert "examples:" in out
    assert "posbench list" in out


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - SCHEMAS.keys()))
def test_help_of_a_command_with_flags(posbench, name):
    with pytest.raises(SystemExit) as end:
        posbench(name, "--help")
    assert end.value.code == 0


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_examples_compose(posbench, name):
    lines = re.findall(rf"^  posbench ({name} .*|{name})$", load(name).__doc__, re.MULTILINE)
    assert lines
    for line in lines:
        words = [word for word in shlex.split(line) if word != "--multirun"]
        words = [re.sub(r"^scheme=(\w+),\w+$", r"scheme=\1", word) for word in words]
        status, out, err = posbench(*words, "--cfg", "job")
        assert (status, err) == (0, ""), line
        assert out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--scheme", "alibi"], ["unknown option --scheme", "write scheme=alibi"]),
        (["train", "--config-dir", ".", "scheme=rop"], ["unknown scheme 'rop'"]),
        (["sweep", "grid.scheme=rope,alibi"], ["write 'grid.scheme=[rope,alibi]'"]),
        (["swep"], ["unknown command 'swep'", "did you mean 'sweep'"]),
        (["list", "schemas"], ["schemas", "schemes", "--help"]),
        (["completion", "tcsh"], ["tcsh", "bash", "--help"]),
        (["benchmark", "--only", "pears"], ["pears", "peers"]),
        (["benchmark", "--scheme", "rope"], ["--only schemes"]),
        (["benchmark", "--only", "schemes", "--scheme", "rop"], ["'rop'", "did you mean"]),
        (["gpu-check", "--only", "rop"], ["'rop'", "did you mean"]),
        (["gpu-check", "--workers", "-1"], ["--workers -1"]),
        (["figures", "results_dir=.", "experiments=[none]"], ["no folder none", "posbench sweep"]),
        (["figures"], ["no results folder", "posbench sweep experiment=demo"]),
        (["figures", "results_dir=."], ["no experiment", "posbench sweep experiment=demo"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(posbench, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = posbench(*arguments)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == []
