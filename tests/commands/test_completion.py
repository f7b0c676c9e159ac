"""Shell completion through argcomplete."""

import os
import subprocess
import sys

import pytest

from posbench.commands.catalog import names


def completions(line: str, tmp_path) -> list[str]:
    """What the shell is offered at the end of a line."""
    out = tmp_path / "completions"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "posbench"], env=environment, check=True)
    return [word.strip() for word in out.read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("posbench swe", ["sweep"]),
        ("posbench train scheme=ali", ["scheme=alibi"]),
        ("posbench train --multirun scheme=rope,ali", ["scheme=rope,alibi"]),
        ("posbench sweep experiment=mini", ["experiment=miniature"]),
        ("posbench sweep grid.extension=[pi,yar", ["grid.extension=\\[pi,yarn"]),
        ("posbench sweep figures=[fixed", ["figures=\\[fixed_targets"]),
        ("posbench train train.warm", ["train.warmup_fraction="]),
        ("posbench train ++train.warm", ["++train.warmup_fraction="]),
        ("posbench train scheme=hwfa scheme.build.w", ["scheme.build.window="]),
        ("posbench evaluate task=key_value task.build.q", ["task.build.query_aware="]),
        ("posbench evaluate evaluation.include_extensions=f", ["evaluation.include_extensions=false"]),
        ("posbench describe yar", ["yarn"]),
        ("posbench describe scheme/win", ["scheme/window"]),
        ("posbench list sch", ["schemes"]),
        ("posbench completion z", ["zsh"]),
        ("posbench train --cfg j", ["job"]),
    ],
)
def test_a_word_is_completed(line, offered, tmp_path):
    assert completions(line, tmp_path) == offered


def test_a_group_lists_its_choices(tmp_path):
    assert completions("posbench train scheme=", tmp_path) == [f"scheme={name}" for name in names("scheme")]
    assert {"train.seq_len=", "scheme=", "size="} <= set(completions("posbench train ", tmp_path))


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete --")]
)
def test_the_script_of_a_shell(posbench, shell, words):
    status, out, _ = posbench("completion", shell)
    assert status == 0
    assert words in out
    assert "posbench" in out


def test_bash_reads_its_script(posbench):
    _, script, _ = posbench("completion", "bash")
    line = "posbench train scheme=ali"
    ask = (
        f"COMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=({line}) COMP_CWORD=2; "
        '_python_argcomplete posbench; echo "${COMPREPLY[@]}"'
    )
    own = f'posbench() {{ "{sys.executable}" -m posbench "$@"; }}\n'
    done = subprocess.run(["bash", "-c", f"{own}{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["alibi"]


def test_completion_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, argcomplete\n"
        "argcomplete.autocomplete = lambda parser: None\n"
        "from posbench.commands import completion\n"
        "completion.complete()\n"
        "print([name for name in ('torch', 'numpy', 'hydra', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
