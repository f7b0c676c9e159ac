"""posbench export: what is in the folder, what the card says, and one clear line for every mistake."""

import json
import py_compile
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import MODEL, evaluated, settings, write_trained
from transformers import AutoModelForCausalLM, AutoTokenizer

from posbench.commands.arguments import parser
from posbench.config.data import TokenizerSettings
from posbench.data.corpus import open_corpus

PYTHON = '''
"""A penalty on the distance, with a helper in a module beside it."""

from posbench.position.biases import AttentionBias, DistanceBias
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits

from .helper import penalty


class Mine(PositionScheme):
    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, strength: float = 1.0) -> None:
        super().__init__()
        self.strength, self.heads = strength, shape.n_heads

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(lambda n: penalty(n, self.strength, self.heads), cache_owner=self)
'''
HELPER = (
    "def penalty(n, strength, heads):\n    return -strength * n.double().sqrt().expand(heads, *n.shape)\n"
)
GENERATE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
sys.modules["posbench"] = sys.modules["my_schemes"] = None
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(["def f(x):", "x"], return_tensors="pt", padding=True)
print(model.generate(**inputs, max_new_tokens=3).shape)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package outside posbench with a scheme, and a trained model of it."""
    package = tmp_path / "my_schemes"
    package.mkdir()
    (package / "mine.py").write_text(PYTHON)
    (package / "helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [one for one in sys.modules if one.partition(".")[0] == "my_schemes"]:
        monkeypatch.delitem(sys.modules, name)
    from posbench.instantiate import allow

    allow(["my_schemes"])
    scheme = {"_target_": "my_schemes.mine.Mine", "strength": 0.5}
    return write_trained(tmp_path / "results", settings(scheme, "mine"))


def test_the_folder_and_its_card(posbench, trained, tmp_path):
    out = tmp_path / "out"
    status, said, err = posbench("export", trained, "--to", out)
    assert (status, err) == (0, "")
    assert "model type posbench" in said
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} < names
    assert {"modeling_posbench.py", "schemes_alibi.py"} < names
    assert not any("import posbench" in path.read_text() for path in out.glob("*.py"))
    assert not any(
        re.search(r"^\s*from posbench", path.read_text(), re.MULTILINE) for path in out.glob("*.py")
    )
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    sums = evaluated().query("eval_len == 128").groupby("metric")["value_sum"].sum()
    assert f"{sums['nll'] / sums['bytes'] / np.log(2):.2f}" in card, "bits per byte at 128 tokens"
    assert f"posbench export {trained} --to {out}" in card


def test_the_tokenizer_gives_the_ids_of_training(posbench, trained, tmp_path):
    posbench("export", trained, "--to", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    text = "naïve ﬁ…\r\n\t日本語 🙂"
    assert tokenizer(text).input_ids == [256, *text.encode()]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert tokenizer.convert_tokens_to_ids(["<bos>", "<key_0>", "<value_15>"]) == [256, 257, 360]
    assert len(tokenizer) == 361


def test_a_bpe_gives_the_ids_of_training(posbench, tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the cat sat on the mat of {name}\n" * 200)
    paths = {name: str(tmp_path / f"{name}.txt") for name in ("train", "validation", "test")}
    given = settings()
    data = replace(
        given.data,
        source="files",
        paths=paths,
        tokenizer=TokenizerSettings("bpe", 270),
        num_keys=4,
        num_values=4,
    )
    corpus = open_corpus(data, tmp_path / "cache", lambda line: None)
    size = corpus.vocabulary.vocab_size
    folder = write_trained(tmp_path / "results", replace(given, data=data), size)
    out = tmp_path / "out"
    assert posbench("export", folder, "--to", out, "--cache-dir", tmp_path / "cache")[0] == 0
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    text = "the cat  sat"
    assert tokenizer(text).input_ids == [corpus.vocabulary.bos, *corpus.tokenizer.encode(text).tolist()]
    assert len(tokenizer) == size


def test_the_command_of_the_card_trains_the_same_model(posbench, trained, tmp_path):
    """The card names only what differs from the files in configs/."""
    posbench("export", trained, "--to", tmp_path / "out")
    command = re.search(r"^posbench train (.*)$", (tmp_path / "out" / "README.md").read_text(), re.MULTILINE)[
        1
    ]
    assert command == ("scheme=alibi size=l1h1d16 data=stdlib train.steps=7 train.synthetic_fraction=0.25")
    composed = yaml.safe_load(posbench("train", *command.split(), "--cfg", "job")[1])
    given = asdict(settings())
    for group in ("scheme", "size", "train"):
        assert {key: composed[group][key] for key in given[group]} == given[group]


def test_the_command_of_a_label_that_is_no_file(posbench, tmp_path):
    """Fault: after a training with scheme.name=mine, the card's command had scheme=mine, which is no choice."""
    mine = {"_target_": "posbench.schemes.rope.RoPE", "rope_theta": 500.0, "interleaved": True}
    folder = write_trained(tmp_path / "results", settings(mine, "mine"))
    posbench("export", folder, "--to", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    command = re.search(r"^posbench train (.*)$", card, re.MULTILINE)[1]
    assert command.startswith("scheme=rope scheme.name=mine scheme.build.rope_theta=500.0 size=l1h1d16 ")
    composed = yaml.safe_load(posbench("train", *command.split(), "--cfg", "job")[1])
    assert composed["scheme"]["name"] == "mine"
    assert composed["scheme"]["build"] == mine


def test_an_option_that_is_given_twice():
    """Fault: of `--set factor=4 --set temperature=0.2` the second was kept alone."""
    words = ["model", "--to", "out", "--set", "factor=4", "--set", "temperature=0.2", "scale=1"]
    assert parser("export").parse_args(words).set == ["factor=4", "temperature=0.2", "scale=1"]


def test_a_length_is_declared(posbench, trained, tmp_path):
    out = tmp_path / "out"
    assert (
        posbench("export", MODEL, "--to", out, "--results-dir", tmp_path / "results", "--length", 256)[0] == 0
    )
    config = json.loads((out / "config.json").read_text())
    assert config["length"] == config["max_position_embeddings"] == 256


def test_rope_needs_no_code(posbench, tmp_path):
    rope = {"_target_": "posbench.schemes.rope.RoPE"}
    folder = write_trained(tmp_path / "results", settings(rope, "rope"))
    status, said, _ = posbench("export", folder, "--to", tmp_path / "plain")
    assert status == 0
    assert "model type arcee" in said
    assert not list((tmp_path / "plain").glob("*.py"))
    posbench("export", folder, "--to", tmp_path / "own", "--own-code")
    ids = torch.arange(100)[None]
    with torch.no_grad():
        plain, own = (
            AutoModelForCausalLM.from_pretrained(tmp_path / name, trust_remote_code=name == "own")(ids).logits
            for name in ("plain", "own")
        )
    torch.testing.assert_close(plain, own, rtol=0, atol=1e-4)


def test_a_scheme_from_outside(posbench, outside, tmp_path):
    """Its module and the module beside it are copied; it generates where neither package can be imported."""
    out = tmp_path / "out"
    status, _, err = posbench("export", outside, "--to", out, "--allow", "my_schemes")
    assert (status, err) == (0, "")
    assert (out / "my_schemes_helper.py").read_text() == HELPER
    assert "Apache-2.0, and those of my_schemes, under their own licence." in (out / "README.md").read_text()
    run = subprocess.run(
        [sys.executable, "-c", GENERATE, str(out)], capture_output=True, text=True, cwd="/", check=False
    )
    assert run.returncode == 0, run.stderr
    assert "[2, 13]" in run.stdout


def test_a_scheme_from_outside_without_source(posbench, outside, tmp_path, monkeypatch):
    package = tmp_path / "my_schemes"
    py_compile.compile(str(package / "mine.py"), str(package / "mine.pyc"))
    (package / "mine.py").unlink()
    monkeypatch.delitem(sys.modules, "my_schemes.mine")
    status, _, err = posbench("export", outside, "--to", tmp_path / "out", "--allow", "my_schemes")
    assert status == 2
    assert "my_schemes.mine has no source file" in err
    assert not (tmp_path / "out").exists()


def test_two_modules_of_one_file(posbench, tmp_path, monkeypatch):
    """Fault: of posbench.schemes.alibi and a schemes.alibi from outside, the first that was found took the place of both."""
    package = tmp_path / "schemes"
    package.mkdir()
    (package / "alibi.py").write_text(PYTHON.replace("from .helper", "from .rope"))
    (package / "rope.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    from posbench.instantiate import allow

    allow(["schemes"])
    scheme = {
        "_target_": "posbench.position.compose.Stack",
        "schemes": [
            {"_target_": "schemes.alibi.Mine"},
            {"_target_": "posbench.schemes.rope.RoPE"},
        ],
    }
    folder = write_trained(tmp_path / "results", settings(scheme, "mine"))
    status, _, err = posbench("export", folder, "--to", tmp_path / "out", "--allow", "schemes")
    assert (status, err.count("\n")) == (2, 1)
    assert "would both be schemes_rope.py" in err
    assert not (tmp_path / "out").exists()


def test_a_scheme_from_outside_must_be_allowed(posbench, outside, tmp_path):
    status, _, err = posbench("export", outside, "--to", tmp_path / "out")
    assert status == 2
    assert "allow" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--push", "not a name"], "is not a repository"),
        (["--push", "a/b/c"], "is not a repository"),
        (["--extension", "yarrn"], "did you mean 'yarn'"),
        (["--extension", "nbce", "--length", "128"], "is an ensemble"),
        (["--extension", "window"], "is built for one length: give --length"),
        (["--extension", "yarn", "--length", "128"], "needs a scheme with inv_freq"),
        (["--extension", "window", "--length", "128", "--set", "widnow=4"], "widnow"),
        (["--extension", "window", "--length", "128", "--set", "window"], "write KEY=VALUE"),
        (["--set", "factor=2"], "without an extension"),
        (["--length", "0"], "--length 0"),
        (["--length", "long"], "invalid int"),
        (["--dtype", "bfloat16"], "are of pretrained models"),
        (["--dtype", "float8"], "--dtype"),
    ],
)
def test_mistakes_are_one_line(posbench, trained, tmp_path, arguments, message):
    status, out, err = posbench("export", trained, "--to", tmp_path / "out", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty(posbench, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    status, _, err = posbench("export", trained, "--to", tmp_path / "out")
    assert status == 2
    assert "is not empty" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    assert posbench("export", trained, "--to", tmp_path / "out")[0] == 0


def test_models_that_are_not_finished(posbench, tmp_path):
    folder = tmp_path / "results" / "models" / "fedcba9876543210"
    (folder / "step-3").mkdir(parents=True)
    status, _, err = posbench("export", folder, "--to", tmp_path / "out")
    assert status == 2
    assert "has no finished model" in err
    diverged = write_trained(tmp_path / "results", settings(), status="diverged")
    assert "its weights are no numbers" in posbench("export", diverged, "--to", tmp_path / "out")[2]
    tuned = {**asdict(settings()), "finetune": asdict(settings().train)}
    fine_tuned = write_trained(tmp_path / "results", settings(), settings=tuned)
    assert "does not say with which extension" in posbench("export", fine_tuned, "--to", tmp_path / "out")[2]
    write_trained(tmp_path / "results", settings(), settings=tuned, extension={"name": "pi", "old": 1})
    assert "another version of posbench" in posbench("export", fine_tuned, "--to", tmp_path / "out")[2]


def test_a_black_box_is_there_already(posbench, tmp_path):
    folder = tmp_path / "bloom"
    from transformers import BloomConfig, BloomForCausalLM

    BloomForCausalLM(
        BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2, seq_length=64)
    ).save_pretrained(folder)
    status, _, err = posbench("export", folder, "--to", tmp_path / "out")
    assert status == 2
    assert "there is nothing to export" in err
    assert Path(folder / "config.json").exists()
