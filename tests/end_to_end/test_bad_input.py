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
        (["+evaluate.key_valu.length_multiples=[1]"], ["task 'key_valu'", "did you mean 'key_value'"]),
        (["size=tiy"], ["size 'tiy'", "medium", "did you mean 'tiny'"]),
        (["data=source"], ["data 'source'", "stdlib"]),
        (["figures=[fixed]"], ["figure 'fixed'", "fixed_targets"]),
        (["train.lenght=3"], ["'train.lenght'", "did you mean 'train.seq_len'"]),
        (["+train.new=1"], ["'train.new'", "train.seq_len"]),
        (["++train.lenght=3"], ["'train.lenght'", "did you mean 'train.seq_len'"]),
        (["+nonsense=3"], ["'nonsense'", "train"]),
        (["nonsense"], ["'nonsense'", "key=value"]),
        (["train.seq_len=[1"], ["'train.seq_len=[1'", "key=value"]),
        (["train.steps=many"], ["train.steps", "'many'", "Integer"]),
        (["train.steps=1.5"], ["train.steps", "1.5"]),
        (["grid.seed=3"], ["grid.seed", "list"]),
        (["+grid.train.lrr=[1]"], ["'grid.train.lrr'", "did you mean 'grid.train.lr'"]),
        (["grid.train.lr=[1]"], ["+grid.train.lr"]),
        (["grid.scheme=[]"], ["grid.scheme"]),
        (["+overrides.scheme.rope.rope_thta=3"], ["'rope_thta'", "did you mean 'rope_theta'"]),
        (["size.n_heads=5"], ["5 heads", "width 16"]),
        (["size.d_model=6"], ["head dimension", "even"]),
        (["train.steps=0"], ["train.steps 0", "at least 1"]),
        (["train.batch_size=8", "train.grad_accum_steps=3"], ["grad_accum_steps 3", "divisor"]),
        (["train.synthetic_fraction=1.5"], ["train.synthetic_fraction 1.5", "0 to 1"]),
        (["train.dtype=float8"], ["float8", "bfloat16"]),
        (["train.optimizer=sgd"], ["sgd", "muon"]),
        (["train.seq_len=512"], ["88 distinct keys", "data.num_keys"]),
        (["runtime.kernel=quick"], ["kernel 'quick'", "dense"]),
        (["runtime.launcher=far"], ["launcher 'far'", "local"]),
        (["runtime.device=abacus"], ["'abacus'", "cuda"]),
        (["runtime.wandb_mode=maybe"], ["'maybe'", "offline"]),
        (["evaluate.key_value.length_multiples=[64]"], ["1024 tokens", "88 distinct keys"]),
        (["+evaluate.fixed_targets.lengths=[9000000]"], ["9000000", "longest possible length is"]),
        (["evaluate.fixed_targets.length_multiples=[1.3]"], ["1.3 times", "16"]),
        (["+evaluate.fixed_targets.lengths=[2]"], ["2 tokens", "4"]),
        (["+evaluate.non_overlapping.lengths=[24]"], ["24 tokens", "divisor"]),
        (["evaluate.prefix.length_multiples=[]"], ["evaluate.prefix", "multiples"]),
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
    small = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
    refused(script("train", *small, *overrides), *said)
    assert script("train", *small, overrides[0]).code == 0
    if "flex" not in said[0]:  # whose forward pass the CPU has
        refused(script("evaluate", *small, "evaluation.length_multiples=[1]", *overrides), *said)


def test_a_dtype_that_there_is_not(script):
    """In training and in evaluation, whichever kernel is asked for."""
    small = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
    refused(script("train", *small, "train.dtype=float64"), "float64", "bfloat16")
    assert script("train", *small).code == 0
    refused(script("evaluate", *small, "evaluation.dtype=float16"), "float16", "bfloat16")


def test_train_refuses(script):
    refused(script("train", "scheme=rop"), "scheme 'rop'", "did you mean 'rope'")
    refused(script("train", "scheme.build.rope_thet=3"), "rope_thet")
    refused(script("train", "+scheme.build.rope_thet=3"), "'rope_thet'", "rope_theta")
    refused(script("train", "scheme.build._target_=nowhere.Nothing"), "nowhere.Nothing", "PYTHONPATH")
    refused(script("train", "scheme.build._target_=posbench.training.muon.Muon"), "setting")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["grid.scheme=[rope]", "overrides.scheme.rope.rope_theta=0.5"], ["rope_theta 0.5", "above 1"]),
        (["grid.scheme=[t5]", "+overrides.scheme.t5.num_buckets=1"], ["1 buckets", "at least 2"]),
        (
            ["grid.scheme=[hwfa]", "+overrides.scheme.hwfa.window=17"],
            ["window 17", "at most the training length, 16"],
        ),
        (
            ["grid.scheme=[swan]", "+overrides.scheme.swan.window=0"],
            ["window 0", "at least 1"],
        ),
        (["grid.extension=[pi]", "+overrides.extension.pi.factor=0.5"], ["factor 0.5", "at least 1", "auto"]),
        (["grid.extension=[ntk]", "+overrides.extension.ntk.factor=-2"], ["factor -2", "at least 1", "auto"]),
        (
            ["grid.extension=[longrope]", "+overrides.extension.longrope.long_factor=[1,2,3]"],
            ["long_factor [1, 2, 3]", "4 finite numbers", "null"],
        ),
        (
            ["grid.extension=[rerope]", "+overrides.extension.rerope.window=0"],
            ["window 0", "at least 1", "null"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_a_sweep_refuses_settings_out_of_range_before_it_trains(script, overrides, said):
    answer = script("sweep", *MINIATURE, "size.n_layers=2", *overrides)
    refused(answer, *said)
    assert "train" not in answer.out


def test_a_scheme_whose_settings_do_not_reach_the_length(script):
    short = ("grid.scheme=[randomized_rope]", "+overrides.scheme.randomized_rope.max_position=32")
    refused(script("sweep", *MINIATURE, *short), "below 32", "larger max_position")


def test_evaluate_refuses(script):
    refused(script("evaluate", "train.steps=7"), "no trained model", "posbench train")
    refused(script("evaluate", "extension=yarm"), "extension 'yarm'")
    refused(script("evaluate", "task=key_valu"), "task 'key_valu'")


def test_an_extension_that_a_scheme_cannot_carry(script):
    small = (
        "size.n_layers=1",
        "size.d_model=8",
        "size.n_heads=2",
        "train.steps=2",
        "train.seq_len=8",
        "scheme=alibi",
    )
    assert script("train", *small).code == 0
    refused(script("evaluate", *small, "extension=yarn"), "inv_freq", "ALiBi")
    # In a grid it is left out, and said.
    grid = ("grid.scheme=[alibi]", "grid.extension=[yarn]", "grid.extended_schemes=[]", "train.steps=2")
    answer = script("sweep", *MINIATURE, *grid)
    assert answer.code == 0
    assert "left out: alibi + yarn" in answer.out


def test_figures_refuses_a_folder_without_rows(script, tmp_path):
    refused(script("figures"), "no experiment", "make demo")
    refused(script("figures", "experiments=[demo]"), "demo", "posbench sweep")


def test_results_that_cannot_be_written(script, tmp_path):
    # A file in the way refuses root too.
    (tmp_path / "file").touch()
    answer = script("sweep", *MINIATURE, f"runtime.results_dir={tmp_path}/file/results")
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
