"""Files of others: their settings run no code of their own."""

import json
from pathlib import Path

import pytest

from posbench import instantiate
from posbench.errors import ConfigError
from posbench.lm.chunks import ChunkEnsemble
from posbench.position.extension import Extension
from posbench.position.scheme import PositionScheme
from posbench.tasks.task import Task

SMALL = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
SWEEP = ("experiment=miniature", "runtime.launcher=inline", "grid.extension=[]", "grid.scheme=[rope]")
ROPE = "posbench.schemes.rope.RoPE"
STACK = "posbench.position.compose.Stack"


def assert_refused(result, *expected: str) -> None:
    """Asserts exit status 2 and one line that has all of `expected`."""
    lines = result.err.strip().splitlines()
    assert result.code == 2, result
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: "), lines
    for words in expected:
        assert words in lines[0], (words, lines[0])


def build(target: str) -> str:
    return f"name: theirs\nbuild: {target}\n"


OWN = "{_target_: foreign.%s}"
NESTED = {
    "base_scheme": "{_target_: posbench.schemes.ssmax.SSMax, base_scheme: {_target_: foreign.RoPE}}",
    "bias_scheme": "{_target_: posbench.schemes.dape.DAPE, bias_scheme: {_target_: foreign.RoPE}}",
    "stack": f"{{_target_: {STACK}, schemes: [{{_target_: {ROPE}}}, {{_target_: foreign.RoPE}}]}}",
    "deep": f"{{_target_: {STACK}, schemes: [{{_target_: {STACK}, schemes: [{{_target_: foreign.RoPE}}]}}]}}",
}
# File, its content, command, overrides.
WAYS = {
    "scheme-train": ("scheme/theirs", build(OWN % "RoPE"), "train", (*SMALL, "scheme=theirs")),
    "scheme-evaluate": ("scheme/theirs", build(OWN % "RoPE"), "evaluate", (*SMALL, "scheme=theirs")),
    "scheme-sweep": ("scheme/theirs", build(OWN % "RoPE"), "sweep", (*SWEEP, "grid.scheme=[theirs]")),
    "scheme-properties": ("scheme/theirs", build(OWN % "RoPE"), "properties", ("schemes=[theirs]",)),
    **{
        f"nested-{name}": ("scheme/theirs", build(text), "train", (*SMALL, "scheme=theirs"))
        for name, text in NESTED.items()
    },
    **{
        f"{group}-evaluate": (f"{group}/theirs", build(OWN % name), "evaluate", (*SMALL, f"{group}=theirs"))
        for group, name in (
            ("extension", "PositionInterpolation"),
            ("ensemble", "ChunkEnsemble"),
            ("task", "FixedTargets"),
        )
    },
    "extension-sweep": (
        "extension/theirs",
        build(OWN % "PositionInterpolation"),
        "sweep",
        (*SWEEP, "grid.extension=[theirs]"),
    ),
    "ensemble-sweep": (
        "ensemble/theirs",
        build(OWN % "ChunkEnsemble"),
        "sweep",
        (*SWEEP, "grid.ensemble=[theirs]"),
    ),
    "task-sweep": (
        "task/theirs",
        build(OWN % "FixedTargets"),
        "sweep",
        (*SWEEP, "+evaluate.theirs.length_multiples=[1]"),
    ),
    "figure-sweep": (
        "figure/theirs",
        "name: theirs\ndraw: foreign.draw\n",
        "sweep",
        (*SWEEP, "figures=[theirs]"),
    ),
    **{
        f"experiment-{key}": (
            "experiment/theirs",
            f"# @package _global_\ndefaults: [miniature, _self_]\n{text}\n",
            "sweep",
            (*SWEEP[1:], "experiment=theirs"),
        )
        for key, text in {
            "overrides": "overrides: {scheme: {rope: {_target_: foreign.RoPE}}}",
            "variants": "variants: {x: {extension: pi, settings: {_target_: foreign.PositionInterpolation}}}",
            "finetune": "finetune: {x: {extension: pi, settings: {_target_: foreign.PositionInterpolation}, train: {steps: 2}}}",
            "evaluate": "evaluate: {key_value: {settings: {_target_: foreign.FixedTargets}}}",
        }.items()
    },
    "command-line": (
        "scheme/none",
        "",
        "train",
        (*SMALL, "scheme=nope", "scheme.build._target_=foreign.RoPE"),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_module_of_others_is_not_imported(way, script, foreign, tmp_path):
    """A yaml of hydra.searchpath with `_target_: os.system` ran its command, as a task, scheme or extension."""
    file, text, command, overrides = WAYS[way]
    path = foreign(file, text)
    assert_refused(script(command, path, *overrides), "'foreign'", "allow=[foreign]")
    assert not (tmp_path / "ran").exists()


TARGETS = """os.system subprocess.Popen shutil.rmtree posbench.files._delete posbench.training.muon.Muon
posbench.files.shutil.rmtree posbench.checksums.json.loads builtins.exec exec posbench.__main__.main
posbench.lm.interface.Prompt posbench..files posbench.files. ../x"""


@pytest.mark.parametrize("target", [*TARGETS.split(), "", 3, None, ["os.system"], {"a": 1}])
@pytest.mark.parametrize("base", [PositionScheme, Extension, Task, ChunkEnsemble])
def test_only_classes_of_the_group_are_called(base, target, monkeypatch):
    """Any callable was called; now not even where its package is allowed."""
    monkeypatch.setattr(instantiate, "_allowed", {"os", "subprocess", "shutil", "builtins"})
    with pytest.raises(ConfigError, match=r"^_target_ [^\n]*: [^\n]+$"):
        instantiate.instantiate({"_target_": target}, base)


@pytest.mark.parametrize("settings", ["os.system", ["os.system"], 3, None, {}, {"target": "os.system"}])
def test_settings_without_a_target(settings):
    with pytest.raises(ConfigError, match=r"^settings without _target_: [^\n]+$"):
        instantiate.instantiate(settings, PositionScheme)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("experiment/theirs", "# @package _global_\ndefaults: [miniature, _self_]\nallow: [foreign]\n"),
        ("experiment/theirs", "# @package allow\ndefaults: [miniature, _self_]\nx: 3\n"),
        ("size/theirs", "# @package _global_\nallow: [foreign]\n"),
        *(
            ("experiment/theirs", f"# @package _global_\ndefaults: [miniature, _self_]\nhydra: {{{text}}}\n")
            for text in (
                "callbacks: {x: {_target_: foreign.RoPE}}",
                "launcher: {_target_: foreign.RoPE}",
                "overrides: {task: ['allow=[foreign]']}",
                "job: {env_set: {PATH: ''}}",
                "job_logging: {version: 1, root: {handlers: [x]}, handlers: {x: {class: foreign.RoPE}}}",
            )
        ),
        ("size/theirs", "# @package hydra.callbacks\nx: {_target_: foreign.RoPE}\n"),
    ],
)
def test_files_set_neither_allow_nor_hydra(file, text, script, foreign, tmp_path):
    """Only the command line allows packages; callbacks and loggers of Hydra are called before any check of ours."""
    path = foreign(file, text)
    chosen = file.replace("/", "=")
    base = SWEEP[1:] if chosen == "experiment=theirs" else SWEEP
    assert_refused(script("sweep", path, chosen, *base), "sets", "command line")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "given", ["allow=[../x]", "allow=3", "allow=[a.b]", "allow={a: 1}", "allow=[[a]]", "allow=''"]
)
def test_allow_names_packages(given, script):
    assert_refused(script("train", *SMALL, given), "allow")


@pytest.mark.parametrize(
    "draw",
    [
        "foreign.draw",
        "os.system",
        "posbench.report.figures.save",
        "posbench.files.write_text",
        "posbench.nothing.draw",
    ],
)
def test_figures_call_drawing_functions_only(draw, script, foreign, tmp_path):
    """`draw:` of a figure named any function, also through the list of figures in experiment.json."""
    path = foreign("figure/theirs", f"name: theirs\ndraw: {draw}\n")
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    published = Path(__file__).parents[2] / "results" / "published" / "demo" / "rows.parquet"
    (folder / "rows.parquet").write_bytes(published.read_bytes())
    (folder / "experiment.json").write_text(json.dumps({"scheme_order": [], "figures": ["theirs"]}))
    assert_refused(script("figures", path), "draw", draw)
    assert not (tmp_path / "ran").exists()
    (folder / "experiment.json").write_text(json.dumps({"scheme_order": [], "figures": ["../figure/theirs"]}))
    assert_refused(script("figures", path), "'../figure/theirs'", "letters")


@pytest.mark.parametrize(
    "given", ["{home}", ".", "..", "x", "0123456789ABCDEF", "0123456789abcde/", "'0123456789abcdef '"]
)
def test_a_fingerprint_is_hexadecimal(given, script, tmp_path):
    """data.fingerprint=/home/me renamed that folder before it was refused; `.` renamed the whole cache."""
    home = tmp_path / "home"
    home.mkdir()
    for command, base in (("train", SMALL), ("evaluate", SMALL), ("sweep", SWEEP)):
        assert_refused(
            script(command, *base, f"data.fingerprint={given.format(home=home)}"), "data.fingerprint", "hexa"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
