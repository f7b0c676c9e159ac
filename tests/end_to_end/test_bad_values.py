"""Values of the right type that make no sense: one line and exit status 2, before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from posbench.commands import catalog, run
from posbench.config.keys import SCHEMAS
from posbench.data import algorithmic, associative_recall, corpus, mqar, ruler, tokenizer
from posbench.kernels import dispatcher
from posbench.plan import feasibility
from posbench.tracking import wandb

MINIATURE = ("sweep", "experiment=miniature")
PRETRAINED = ("evaluate", "lm=hugging_face", "lm.name=nowhere/model")

# Command and overrides -> a part of the error line.
BAD_VALUES = {
    # nan, infinities, negative numbers
    ("train", "train.lr=nan"): "train.lr nan: give a number above 0",
    ("train", "train.lr=0"): "train.lr 0.0",
    ("train", "train.muon_lr=inf"): "train.muon_lr inf",
    ("train", "train.max_grad_norm=-1"): "at least 0",
    ("train", "train.max_grad_norm=inf"): "train.max_grad_norm inf",
    ("train", "train.beta1=1.5"): "below 1",
    ("train", "train.beta2=-0.1"): "train.beta2 -0.1",
    ("train", "train.weight_decay=-1"): "train.weight_decay -1.0",
    ("train", "train.seed=-1"): "train.seed -1",
    ("train", "train.seed=1000000000000000"): "2147483647",
    ("evaluate", "evaluation.length_multiples=[nan]"): "evaluation.length_multiples nan",
    ("evaluate", "evaluation.length_multiples=[-1]"): "above 0",
    ("evaluate", "evaluation.seed=-1"): "evaluation.seed -1",
    ("evaluate", "+extension.build.factor=0"): "below one that is null",
    ("train", "scheme.build.rope_theta=nan"): "scheme.build.rope_theta nan: give a finite number",
    # zero and negative counts
    ("train", "size.n_layers=0"): "size.n_layers 0: give a number at least 1",
    ("train", "size.d_model=0"): "size.d_model 0",
    ("train", "size.mlp_ratio=0"): "size.mlp_ratio 0",
    ("train", "size.head_dim=-2"): "size.head_dim -2",
    ("train", "train.val_batches=0"): "train.val_batches 0",
    ("train", "train.val_batches=-1"): "train.val_batches -1",
    ("train", "data.bos=-1"): "data.bos -1",
    ("train", "data.num_keys=1"): "data.num_keys 1",
    ("train", "runtime.num_workers=-1"): "runtime.num_workers -1",
    ("train", "runtime.max_minutes=0"): "runtime.max_minutes 0",
    ("sweep", "runtime.max_minutes=-3"): "runtime.max_minutes -3",
    ("train", "runtime.workers_per_gpu=0"): "runtime.workers_per_gpu 0",
    ("train", "runtime.num_threads=0"): "runtime.num_threads 0",
    ("train", "runtime.checkpoint_interval=0"): "runtime.checkpoint_interval 0",
    ("train", "runtime.max_tokens_per_batch=0"): "runtime.max_tokens_per_batch 0",
    ("train", "runtime.lease_seconds=0"): "runtime.lease_seconds 0",
    ("train", "runtime.slurm.workers=0"): "runtime.slurm.workers 0",
    ("train", "runtime.wait=false"): "runtime.wait changes nothing with runtime.launcher local",
    # huge
    ("train", "train.batch_size=1000000000000"): "train.batch_size 1000000000000",
    ("train", "train.batch_size=1000000000"): "GB of memory",
    ("train", "train.steps=100000000000000000000"): "train.steps 100000000000000000000",
    (
        "train",
        "train.batch_size=2",
        "size.d_model=6144",
        "train.seq_len=4096",
        "train.steps=1000000000",
    ): "years on this machine",
    ("train", "size.n_layers=1000000"): "size.n_layers 1000000",
    ("train", "size.n_layers=100000", "size.d_model=6000"): "GB of memory",
    ("train", "runtime.num_threads=100000"): "runtime.num_threads 100000",
    (*MINIATURE, "evaluate.key_value.settings.num_contexts=1000000000"): "prompts and the limit is 10000000",
    (
        *MINIATURE,
        "evaluate.key_value.settings.num_contexts=9000000",
        "+evaluate.key_value.lengths=[100000]",
    ): "give fewer contexts or a shorter length",
    (*MINIATURE, "+grid.train.batch_size=[8,1000000000]"): "GB of memory",
    (*MINIATURE, "+finetune.pi_9={extension: pi, train: {steps: 9, batch_size: 1000000000}}"): "GB of memory",
    # types inside free dictionaries
    (*MINIATURE, "+grid.train.steps=[many]"): "grid.train.steps 'many': give int",
    (*MINIATURE, "+grid.train.steps=[]"): "give a list of values",
    (*MINIATURE, "+grid.train.steps=3"): "give a list of values",
    (*MINIATURE, "+grid.train.steps=[8,8]"): "has 8 twice",
    (*MINIATURE, "+grid.train.seed=[0,1]"): "give the seeds as grid.seed",
    (*MINIATURE, "+grid.train.batch_size=[null]"): "grid.train.batch_size None: give int",
    (*MINIATURE, "+grid.train.lr=[nan]"): "grid.train.lr nan",
    (*MINIATURE, "+grid.train.optimizer=[sgd]"): "choose one of adamw, muon",
    (*MINIATURE, "+variants.x=3"): "variants.x is 3: give settings by name",
    (*MINIATURE, "+variants.x=null"): "variants.x is None",
    (*MINIATURE, "+finetune.x=[a]"): "finetune.x is ['a']",
    (
        *MINIATURE,
        "+finetune.x={extension: pi, train: {steps: many}}",
    ): "finetune.x.train.steps 'many': give int",
    (*MINIATURE, "evaluate.key_value=3"): "evaluate.key_value is 3",
    (*MINIATURE, "evaluate.key_value.settings=3"): "evaluate.key_value.settings",
    (*MINIATURE, "overrides.scheme.rope=3"): "overrides.scheme.rope is 3",
    (*MINIATURE, "overrides.scheme.rope=null"): "overrides.scheme.rope is None",
    (*MINIATURE, "overrides.scheme.rope.rope_theta=[3]"): "rope_theta of RoPE is [3]: give float",
    (*MINIATURE, "+overrides.ensemble.none.beta=3", "+grid.ensemble=[none]"): "overrides.ensemble.none",
    (*MINIATURE, "+evaluate.key_value_uuid.settings.num_keys=5"): "give list[int] | None",
    (*MINIATURE, "+evaluate.key_value_uuid.settings.num_keys=[x]"): "num_keys of KeyValueUuid is ['x']",
    (
        *MINIATURE,
        "+evaluate.multi_document.settings.num_documents=[a]",
    ): "num_documents of MultiDocument is ['a']",
    (
        *MINIATURE,
        "evaluate.key_value.settings.num_contexts=true",
    ): "num_contexts of KeyValue is True: give int",
    (*MINIATURE, "+evaluate.prefix.settings.max_context=aut"): "max_context of Prefix is 'aut'",
    ("train", "scheme=rnope", "scheme.build.base_scheme=3"): "base_scheme of RNoPE is 3",
    ("train", "scheme.build._target_=3"): "scheme.build has no _target_",
    ("evaluate", "extension=longrope", "extension.build.long_factor=[a]"): "long_factor",
    (*PRETRAINED, "+lm.rope_scaling.factor=nan"): "lm.rope_scaling.factor nan",
    (*PRETRAINED, "+lm.rope_scaling.factor=[2]"): "lm.rope_scaling.factor [2]",
    (*PRETRAINED, "+lm.rope_scaling.factr=2"): "did you mean 'lm.rope_scaling.factor'",
    # lists without meaning, names that nothing uses
    (*MINIATURE, "grid.scheme=[rope,rope]"): "grid.scheme has 'rope' twice",
    (*MINIATURE, "grid.seed=[0,0]"): "grid.seed has 0 twice",
    (*MINIATURE, "grid.size=[tiny,tiny]"): "grid.size has 'tiny' twice",
    (*MINIATURE, "grid.lr=[0.1,0.1]"): "grid.lr has 0.1 twice",
    (*MINIATURE, "grid.extension=[pi,pi]"): "grid.extension has 'pi' twice",
    (*MINIATURE, "figures=[fixed_targets,fixed_targets]"): "figures has 'fixed_targets' twice",
    (*MINIATURE, "grid.seed=[]"): "grid.seed=[0]",
    (*MINIATURE, "grid.extended_schemes=[rop]"): "did you mean 'rope'",
    (*MINIATURE, "grid.extended_schemes=[alibi]"): "not one of grid.scheme",
    (*MINIATURE, "grid.scheme=[alibi]", "grid.extension=[window]"): "grid.extended_schemes=[]",
    (*MINIATURE, "+overrides.scheme.rop.rope_theta=3"): "did you mean 'rope'",
    (*MINIATURE, "+overrides.scheme.t5.num_buckets=8"): "overrides.scheme.t5 changes nothing",
    (*MINIATURE, "+overrides.extension.yarn.beta_fast=8"): "overrides.extension.yarn changes nothing",
    (*MINIATURE, "evaluate={}"): "evaluate={} changes nothing",
    (*MINIATURE, "~evaluate"): "evaluate is empty",
    (*MINIATURE, "name=''"): "name '': give a name of letters",
    (*MINIATURE, "name=../up"): "name '../up': give a name of letters",
    ("properties", "schemes=[rope,rope]"): "schemes has 'rope' twice",
    ("figures", "experiments=[demo,demo]"): "experiments has 'demo' twice",
    ("train", "runtime.device=mps"): "auto, cpu, cuda or cuda:N",
    ("train", "runtime.device=meta"): "auto, cpu, cuda or cuda:N",
    ("train", "runtime.results_dir=''"): "runtime.results_dir '': give a folder",
    ("train", "scheme.name='${nothing}'"): "Interpolation key 'nothing' not found",
    ("train", "data.path=/x"): "data.path changes nothing with data.source sources",
    ("evaluate", "evaluation.task=key_value"): "give task=NAME",
    ("evaluate", "evaluation.include_extensions=false"): "give task=NAME",
    ("evaluate", "lm.name=x"): "lm.name changes nothing with lm.kind native",
    ("evaluate", "ensemble=nbce", "+extension.finetune.steps=10"): "an ensemble is not fine-tuned",
    ("evaluate", "ensemble.name=mine"): "ensemble.name mine without an ensemble",
    ("search", "runtime=slurm"): "a search runs in one process here",
    ("search", "search.length_multiple=1.3"): "search.length_multiple: 1.3 times the training length 64",
    ("evaluate", "evaluation.length_multiples=[1.3]"): "evaluation: 1.3 times the training length 64",
    (*MINIATURE, "+variants.x={extension: none}"): "extension none has no settings to change",
    (*MINIATURE, "+variants.x={extension: none, settings: {factor: 2}}"): "variants.x: extension none has no",
    (*MINIATURE, "figure=ranking"): "write 'figures=[ranking]'",
    ("figures", "experiment=demo"): "this command has a list, write 'experiments=[demo]'",
    ("properties", "scheme=rope"): "write 'schemes=[rope]'",
}
# Content of a yaml file that a user writes -> a part of the error line, or two parts, of which Hydra writes the second.
BAD_FILES = {
    "name: [a\nbuild: {": "not valid yaml",
    "name: x\n\tbuild: 3": "not valid yaml",
    "name: x\nbuild: !!python/object/apply:os.getcwd []": "tag",
    "- a": "settings by name|list is not a subclass of SchemeSettings",
    "": "name",
    "name: x\nbuild: {_target_: posbench.schemes.nope.NoPE}\nextra: 3": "extra",
    "name:\nbuild: {_target_: posbench.schemes.nope.NoPE}": "None",
    "name: x": "build",
    "name: x\nbuild: 3": "ict[str, Any]",
    "name: x\nbuild: {rope_theta: 3}": "_target_",
    b"\xff\xfename": "UTF-8",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["posbench"])
    monkeypatch.setattr(feasibility, "machine_bytes", lambda: 64e9)
    monkeypatch.setattr(feasibility, "n_gpus", lambda: 0)


def posbench(capsys, *arguments: str) -> str:
    """Runs a command that must fail; returns its error line."""
    GlobalHydra.instance().clear()
    status = run(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert (status, len(lines)) == (2, 1), lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    BAD_VALUES.items(),
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, tuple) else "",
)
def test_a_value_that_makes_no_sense(capsys, arguments, expected):
    """Values of the right type that make no sense led to tracebacks, to hours of work or to nothing at all."""
    assert expected in posbench(capsys, *arguments)
    assert not Path("results").exists()


def test_a_value_that_makes_no_sense_needs_no_torch():
    """Each error came after torch had been imported, if at all."""
    code = "import sys\nfrom posbench.commands import run\nstatus = run(sys.argv[1:])\nsys.exit(9 if 'torch' in sys.modules else status)"
    for arguments in [("train", "size.n_layers=100000", "size.d_model=6000"), (*MINIATURE, "evaluate={}")]:
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True)
        assert done.returncode == 2


def test_a_search_path_that_is_not_there(capsys):
    """A folder of hydra.searchpath that does not exist was a warning of Python, and the command went on."""
    assert "no such folder" in posbench(capsys, "train", "hydra.searchpath=[nosuch]")


def test_a_start_of_documents_that_the_tokenizer_lacks(capsys):
    """data.bos=70000 was stored, and failed as an index in the first step of the training."""
    GlobalHydra.instance().clear()
    assert run(["train", "data.bos=70000"]) == 2
    assert "data.bos 70000: give an id of the tokenizer, 0 to 255" in capsys.readouterr().err


@pytest.mark.parametrize("content", BAD_FILES, ids=repr)
@pytest.mark.parametrize(
    "command", ["train scheme=mine", "sweep grid.scheme=[mine]", "properties schemes=[mine]"]
)
def test_a_yaml_file_of_a_user(capsys, tmp_path, command, content):
    """Broken syntax, a Python tag, a list, an unknown key, an empty name, no build: each was a traceback."""
    (tmp_path / "scheme").mkdir()
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "scheme/mine.yaml").write_bytes(data)
    name, override = command.split()
    line = posbench(capsys, name, "--config-dir", str(tmp_path), override)
    assert any(words in line for words in BAD_FILES[content].split("|"))


def test_a_figure_file_without_settings(capsys, tmp_path):
    """Fault: a list in figure/mine.yaml was an AttributeError."""
    (tmp_path / "figure").mkdir()
    (tmp_path / "figure/mine.yaml").write_text("- a")
    line = posbench(capsys, "sweep", "experiment=miniature", "--config-dir", str(tmp_path), "figures=[mine]")
    assert "figure/mine.yaml is ['a']: give settings by name" in line


def test_an_experiment_file_without_its_package(capsys, tmp_path):
    """Fault: "unknown setting 'experiment'" did not name the file, whose first line was missing."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("name: mine\ngrid: {scheme: [rope]}\n")
    line = posbench(capsys, "sweep", "--config-dir", str(tmp_path), "experiment=mine")
    assert "experiment/mine.yaml" in line


@pytest.mark.parametrize("content", BAD_FILES, ids=repr)
@pytest.mark.parametrize("command", ["list schemes", "describe mine"])
def test_a_yaml_file_of_a_user_in_lists(capsys, monkeypatch, tmp_path, command, content):
    """A yaml file that a user had added to configs/ ended `posbench list` and `posbench describe` by a traceback."""
    for group in catalog.GROUPS.values():
        (tmp_path / group).mkdir()
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "scheme/mine.yaml").write_bytes(data)
    monkeypatch.setattr(catalog, "config_dir", lambda: tmp_path)
    catalog.choice.cache_clear()
    line = posbench(capsys, *command.split())
    catalog.choice.cache_clear()
    assert any(words in line for words in BAD_FILES[content].split("|"))
    assert "mine.yaml" in line


def test_the_choices_beside_a_field_are_those_of_the_code():
    """The schema cannot import what it lists, so the two lists are compared here."""
    found = {
        f"{command}.{key}": set(rule.choices)
        for command, settings in SCHEMAS.items()
        for key, rule in rules(settings).items()
    }
    assert found["train.runtime.kernel"] == set(dispatcher.NAMES)
    assert found["train.runtime.wandb_mode"] == set(wandb.MODES)
    kinds = {"associative_recall", "repeated", "flip_flop", *associative_recall.QUESTION_KINDS}
    kinds |= {*algorithmic.RULES, *mqar.LAYOUTS, *ruler.KINDS}
    assert found["train.train.synthetic_task"] == kinds
    assert found["train.data.source"] == set(corpus.SOURCES)
    assert found["train.data.tokenizer.kind"] == set(tokenizer.KINDS)


def rules(settings: type, prefix: str = "") -> dict:
    """The rule of every dotted key of a settings class."""
    found = {}
    for one in settings.__dataclass_fields__.values():
        key, default = f"{prefix}{one.name}", one.default_factory
        if isinstance(default, type) and hasattr(default, "__dataclass_fields__"):
            found |= rules(default, f"{key}.")
        elif "rule" in one.metadata:
            found[key] = one.metadata["rule"]
    return found
