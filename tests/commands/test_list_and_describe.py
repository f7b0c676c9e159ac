"""posbench list and posbench describe: complete, and derived from the code."""

import re
import shlex
from pathlib import Path

import pytest

from posbench.commands import catalog, kinds
from posbench.commands.catalog import GROUPS, choice, names
from posbench.commands.describe import OWN_USES, USES, uses
from posbench.commands.list_choices import table
from posbench.commands.source import Definition, definition
from posbench.config import hydra_app
from posbench.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
CHOICES = [(group, name) for group in GROUPS.values() for name in names(group)]


def base_class(target: str) -> Definition:
    found = definition(target)
    assert found is not None
    return found


@pytest.mark.parametrize("plural", GROUPS)
def test_every_choice_is_listed(posbench, plural):
    status, out, _ = posbench("list", plural)
    assert status == 0
    header, *lines = out.splitlines()
    assert header.startswith("name")
    assert [line.split()[0] for line in lines] == sorted(
        path.stem for path in (CONFIGS / GROUPS[plural]).glob("*.yaml")
    )


def test_without_a_group_all_are_listed(posbench):
    status, out, _ = posbench("list")
    assert status == 0
    assert [line for line in out.splitlines() if line.endswith(":") and " " not in line] == [
        f"{plural}:" for plural in GROUPS
    ]


@pytest.mark.parametrize("group", ["scheme", "extension"])
def test_every_scheme_and_extension_has_a_paper_a_kind_and_a_summary(group):
    for name in set(names(group)) - {"none"}:
        one = choice(group, name)
        assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|https?://\S+[\w/]", one.paper), name
        assert one.kind, name
        assert one.summary.endswith("."), name


@pytest.mark.parametrize(
    ("group", "name", "kind"),
    [
        ("scheme", "nope", "none"),
        ("scheme", "sinusoidal", "absolute"),
        ("scheme", "learned", "absolute"),
        ("scheme", "rope", "rotary"),
        ("scheme", "xpos", "rotary"),
        ("scheme", "alibi", "additive bias"),
        ("scheme", "kerple_log", "additive bias"),
        ("scheme", "fox", "content-dependent bias"),
        ("scheme", "shaw", "content-dependent bias + relative values"),
        ("scheme", "dape", "additive bias + content-dependent bias"),
        ("scheme", "window", "rotary + mask"),
        ("scheme", "ssmax", "rotary + logit scaling"),
        ("scheme", "key_norm", "rotary + query and key scaling"),
        ("scheme", "rnope", "hybrid by layer (rotary)"),
        ("scheme", "linear_attention", "linear"),
        ("scheme", "randomized_rope", "rotary + position mapping"),
        ("extension", "ntk", "frequency scaling"),
        ("extension", "rerope", "position mapping"),
        ("extension", "window", "mask"),
        ("task", "prefix", "perplexity"),
    ],
)
def test_kinds_in_the_words_of_the_field(group, name, kind):
    assert choice(group, name).kind == kind


def test_every_hook_has_a_kind():
    scheme = base_class("posbench.position.scheme.PositionScheme").methods()
    hooks = {name for name in (*scheme, "scale_inv_freq") if not name.startswith("_")} - {"check"}
    assert hooks == set(kinds.HOOKS)
    fields = {
        node.target.id
        for node in base_class("posbench.position.scheme.AttentionInputs").node.body
        if hasattr(node, "target")
    }
    assert fields >= kinds.CONTENT


def test_a_variant_says_what_it_sets():
    assert choice("scheme", "deberta_log").summary.endswith(
        "(max_relative_positions=128, position_buckets=32)."
    )
    assert not choice("scheme", "deberta").summary.endswith(").")


def test_markdown():
    lines = table("size", markdown=True).splitlines()
    assert lines[0] == "| name | kind | summary |"
    assert lines[1] == "| --- | --- | --- |"
    assert len(lines) == 2 + len(names("size"))
    assert {line.count(" | ") for line in lines} == {2}


@pytest.mark.parametrize(("group", "name"), CHOICES, ids="/".join)
def test_every_choice_is_described(posbench, group, name):
    status, out, err = posbench("describe", f"{group}/{name}")
    assert (status, err) == (0, "")
    assert out.startswith(f"{group} {name}\n")
    assert f"configs/{group}/{name}.yaml" in out
    assert "use:" in out


def test_a_description_has_formula_paper_deviations_and_settings(posbench):
    _, out, _ = posbench("describe", "yarn")
    for words in (
        "theta_m becomes",
        "https://arxiv.org/abs/2309.00071",
        "without fine-tuning",
        "ramp: dimensions # dimensions (the authors' code), rotations (the paper)",
        "overrides.extension.yarn.KEY=VALUE",
        "posbench sweep experiment=demo 'grid.extension=[yarn]'",
    ):
        assert words in out


def test_a_name_in_two_groups_needs_its_group(posbench):
    status, _, err = posbench("describe", "window")
    assert (status, err) == (
        2,
        "error: 'window' is in several groups: give scheme/window or extension/window\n",
    )
    assert posbench("describe", "extension/window")[1].startswith("extension window\n")
    assert posbench("describe", "schemes/window")[1].startswith("scheme window\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yarm", "did you mean 'yarn'?"),
        ("scheme/rop", "did you mean 'rope'?"),
        ("schemas/rope", "did you mean 'scheme'?"),
    ],
)
def test_an_unknown_name(posbench, name, words):
    status, _, err = posbench("describe", name)
    assert status == 2
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "line"), [(group, line) for group, lines in USES.items() for line in lines], ids=lambda one: one
)
def test_the_commands_of_a_description_compose(posbench, group, line):
    name = next(name for name in names(group) if name != "none")
    words = shlex.split(line.format(name=name).replace("SCHEME", "rope"))[1:]
    status, out, err = posbench(*words, "--cfg", "job")
    assert (status, err) == (0, "")
    assert name in out


@pytest.mark.parametrize("choice", OWN_USES)
def test_the_commands_of_choices_with_needs_of_their_own(posbench, choice):
    """Fault: task=key_value_uuid was described with lengths, which it refuses, and data=files without data.path."""
    group, name = choice.split("/")
    assert name in names(group)
    for line in uses(group, name):
        words = shlex.split(line.replace("SCHEME", "rope"))[1:]
        status, out, err = posbench(*words, "--cfg", "job")
        assert (status, err) == (0, "")
        assert name in out


def test_a_class_outside_the_package_is_read_from_the_path(tmp_path, monkeypatch):
    (tmp_path / "outside_schemes").mkdir()
    (tmp_path / "outside_schemes" / "root.py").write_text(
        '"""Root: a test."""\n\nclass Root:\n    """x."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = definition("outside_schemes.root.Root")
    assert found is not None
    assert (found.doc, found.module_doc) == ("x.", "Root: a test.")
    assert definition("outside_schemes.root.Missing") is None
    assert definition("nowhere.Nothing") is None


def test_headers_of_yaml_files():
    assert catalog.header("# @package _global_\n# One.\n#\n# Two.\nname: x\n# three\n") == "One.  Two."


@pytest.mark.parametrize("content", ["a: b: c", "- a", b"\xff"], ids=repr)
def test_a_group_with_a_broken_file_is_one_line(tmp_path, monkeypatch, content):
    """Fault: a claim with a colon too many ended `posbench reproductions` by a traceback."""
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "mine.yaml").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    monkeypatch.setattr(hydra_app, "config_dir", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"^claim/mine\.yaml[^\n]*$"):
        hydra_app.load_group("claim")
