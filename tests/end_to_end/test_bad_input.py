"""What bad input gets: exit status 2 and one line that says what was given, what is allowed and what to do."""

import pytest

MINIATURE = ("experiment=miniature", "runtime.launcher=inline", "grid.extension=[]", "grid.scheme=[rope]")


def refused(answer, *said: str) -> None:
    """One line on stderr, nothing like a traceback, and all of `said` in it."""
    lines = answer.err.strip().splitlines()
    assert answer.code == 2, answer
    assert len([line for line in lines if line.startswith("error: ")]) == 1, answer.err
    assert "Traceback" not in answer.err
    for words in said:
        assert words in lines[-1], (words, lines[-1])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment=miniatur"], ["'miniatur'", "did you mean 'miniature'"]),
        (["grid.scheme=[rop]"], ["scheme 'rop'", "alibi", "did you mean 'rope'"]),
        (["grid.extension=[yarm]"], ["extension 'yarm'", "did you mean 'yarn'"]),
        (["+evaluate.key_valu.multiples=[1]"], ["task 'key_valu'", "did you mean 'key_value'"]),
        (["size=tiy"], ["size 'tiy'", "medium", "did you mean 'tiny'"]),
        (["data=source"], ["data 'source'", "stdlib"]),
        (["figures=[fixed]"], ["figure 'fixed'", "fixed_targets"]),
        (["train.lenght=3"], ["'train.lenght'", "did you mean 'train.length'"]),
        (["+train.new=1"], ["'train.new'", "train.length"]),
        (["++train.lenght=3"], ["'train.lenght'", "did you mean 'train.length'"]),
        (["+nonsense=3"], ["'nonsense'", "train"]),
        (["nonsense"], ["'nonsense'", "key=value"]),
        (["train.length=[1"], ["'train.length=[1'", "key=value"]),
        (["train.steps=many"], ["train.steps", "'many'", "Integer"]),
        (["train.steps=1.5"], ["train.steps", "1.5"]),
        (["grid.seed=3"], ["grid.seed", "list"]),
        (["+grid.train.lrr=[1]"], ["'grid.train.lrr'", "did you mean 'grid.train.lr'"]),
        (["grid.train.lr=[1]"], ["+grid.train.lr"]),
        (["grid.scheme=[]"], ["grid.scheme"]),
        (["+adjust.scheme.rope.bse=3"], ["'bse'", "did you mean 'base'"]),
        (["size.heads=5"], ["5 heads", "width 16"]),
        (["size.width=6"], ["head dimension", "even"]),
        (["train.steps=0"], ["train.steps 0", "at least 1"]),
        (["train.batch=8", "train.accumulate=3"], ["accumulate 3", "divisor"]),
        (["train.records=1.5"], ["train.records 1.5", "0 to 1"]),
        (["train.dtype=float8"], ["float8", "bfloat16"]),
        (["train.optimizer=sgd"], ["sgd", "muon"]),
        (["train.length=512"], ["88 distinct keys", "data.keys"]),
        (["runtime.kernel=quick"], ["kernel 'quick'", "dense"]),
        (["runtime.launcher=far"], ["launcher 'far'", "local"]),
        (["runtime.device=abacus"], ["'abacus'", "cuda"]),
        (["runtime.wandb=maybe"], ["'maybe'", "offline"]),
        (["evaluate.key_value.multiples=[64]"], ["1024 tokens", "88 distinct keys"]),
        (["+evaluate.fixed_targets.lengths=[9000000]"], ["9000000", "longest possible length is"]),
        (["evaluate.fixed_targets.multiples=[1.3]"], ["1.3 times", "16"]),
        (["+evaluate.fixed_targets.lengths=[2]"], ["2 tokens", "4"]),
        (["+evaluate.non_overlapping.lengths=[24]"], ["24 tokens", "divisor"]),
        (["evaluate.prefix.multiples=[]"], ["evaluate.prefix", "multiples"]),
        (["data=files", "data.path=/nowhere"], ["/nowhere"]),
        (
            ["data=files", "data.paths={train: /nowhere}"],
            ["data.paths for train", "each of train, validation, test"],
        ),
        (["data=files", "data.paths={valid: /nowhere}"], ["'data.paths.valid'"]),
        (["data.tokenizer={knd: bytes}"], ["'data.tokenizer.knd'", "did you mean 'data.tokenizer.kind'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_sweep_refuses(script, overrides, said):
    refused(script("sweep", *MINIATURE, *overrides), *said)


def test_a_missing_gpu_is_said(script):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(script("sweep", *MINIATURE, "runtime.device=cuda"), "no CUDA device", "device=cpu")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["scheme=rope", "runtime.kernel=flex"],
            ["kernel flex", "no backward pass on the CPU", "kernel=dense"],
        ),
        (["scheme=cope", "runtime.kernel=sdpa"], ["kernel sdpa", "rows of logits", "kernel=dense"]),
        (["scheme=rope", "runtime.kernel=quick"], ["kernel 'quick'", "flex"]),
    ],
    ids=["device", "scheme", "name"],
)
def test_a_kernel_that_cannot_run_is_said(script, overrides, said):
    """In training before its first step, in evaluation before its first cell."""
    import torch

    if torch.cuda.is_available():
        overrides = [*overrides, "runtime.device=cpu"]
    small = ("size.layers=1", "size.width=8", "size.heads=2", "train.steps=2", "train.length=8")
    refused(script("train", *small, *overrides), *said)
    assert script("train", *small, overrides[0]).code == 0
    if "flex" not in said[0]:  # whose forward pass the CPU has
        refused(script("evaluate", *small, "evaluation.multiples=[1]", *overrides), *said)


def test_a_dtype_that_there_is_not(script):
    """In training and in evaluation, whichever kernel is asked for."""
    small = ("size.layers=1", "size.width=8", "size.heads=2", "train.steps=2", "train.length=8")
    refused(script("train", *small, "train.dtype=float64"), "float64", "bfloat16")
    assert script("train", *small).code == 0
    refused(script("evaluate", *small, "evaluation.dtype=float16"), "float16", "bfloat16")


def test_train_refuses(script):
    refused(script("train", "scheme=rop"), "scheme 'rop'", "did you mean 'rope'")
    refused(script("train", "scheme.build.bas=3"), "bas")
    refused(script("train", "+scheme.build.bas=3"), "'bas'", "base")
    refused(script("train", "scheme.build._target_=nowhere.Nothing"), "nowhere.Nothing", "PYTHONPATH")
    refused(script("train", "scheme.build._target_=posbench.training.muon.Muon"), "setting")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["grid.scheme=[rope]", "adjust.scheme.rope.base=0.5"], ["base 0.5", "above 1"]),
        (["grid.scheme=[t5]", "+adjust.scheme.t5.buckets=1"], ["1 buckets", "at least 2"]),
        (
            ["grid.scheme=[hwfa]", "+adjust.scheme.hwfa.window=17"],
            ["window 17", "at most the training length, 16"],
        ),
        (
            ["grid.scheme=[rope_window_nope]", "+adjust.scheme.rope_window_nope.window=0"],
            ["window 0", "at least 1"],
        ),
        (["grid.extension=[pi]", "+adjust.extension.pi.factor=0.5"], ["factor 0.5", "at least 1", "auto"]),
        (["grid.extension=[ntk]", "+adjust.extension.ntk.factor=-2"], ["factor -2", "at least 1", "auto"]),
        (
            ["grid.extension=[longrope]", "+adjust.extension.longrope.long=[1,2,3]"],
            ["long [1, 2, 3]", "4 finite numbers", "null"],
        ),
        (
            ["grid.extension=[rerope]", "+adjust.extension.rerope.window=0"],
            ["window 0", "at least 1", "null"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_a_sweep_refuses_settings_out_of_range_before_it_trains(script, overrides, said):
    answer = script("sweep", *MINIATURE, "size.layers=2", *overrides)
    refused(answer, *said)
    assert "train" not in answer.out


def test_a_scheme_whose_settings_do_not_reach_the_length(script):
    short = ("grid.scheme=[randomized_rope]", "+adjust.scheme.randomized_rope.reach=32")
    refused(script("sweep", *MINIATURE, *short), "below 32", "larger reach")


def test_evaluate_refuses(script):
    refused(script("evaluate", "train.steps=7"), "no trained model", "scripts/train.py")
    refused(script("evaluate", "extension=yarm"), "extension 'yarm'")
    refused(script("evaluate", "task=key_valu"), "task 'key_valu'")


def test_an_extension_that_a_scheme_cannot_carry(script):
    small = (
        "size.layers=1",
        "size.width=8",
        "size.heads=2",
        "train.steps=2",
        "train.length=8",
        "scheme=alibi",
    )
    assert script("train", *small).code == 0
    refused(script("evaluate", *small, "extension=yarn"), "spectrum", "ALiBi")
    # In a grid it is left out, and said.
    grid = ("grid.scheme=[alibi]", "grid.extension=[yarn]", "grid.extend=[]", "train.steps=2")
    answer = script("sweep", *MINIATURE, *grid)
    assert answer.code == 0
    assert "left out: alibi + yarn" in answer.out


def test_figures_refuses_a_folder_without_rows(script, tmp_path):
    refused(script("figures"), "no experiment", "make demo")
    refused(script("figures", "experiments=[demo]"), "demo", "sweep.py")


def test_results_that_cannot_be_written(script, tmp_path):
    # A file in the way refuses root too.
    (tmp_path / "file").touch()
    answer = script("sweep", *MINIATURE, f"runtime.results={tmp_path}/file/results")
    refused(answer, "file/results", "cannot be written")


@pytest.mark.parametrize(
    "content", [None, b"", bytes(range(128, 256)) * 100], ids=["missing", "empty", "not text"]
)
def test_a_corpus_that_is_none(script, tmp_path, content):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_bytes(content)
    refused(script("sweep", *MINIATURE, "data=files", f"data.path={path}"), str(path))


def test_a_hub_corpus_without_a_network(script, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(script("sweep", *MINIATURE, "data=wikitext103"), "wikitext103", "sources", "files")
