"""Bad input: exit status 2 and one line with what was given, what is allowed and what to do."""

import pytest

MINIATURE = ("experiment=miniature", "runtime.launcher=inline", "grid.extension=[]", "grid.scheme=[rope]")


def assert_error(result, *expected: str) -> None:
    """Asserts exit status 2 and one error line, without a traceback, that has all of `expected`."""
    lines = result.err.strip().splitlines()
    assert result.code == 2, result
    assert len([line for line in lines if line.startswith("error: ")]) == 1, result.err
    assert "Traceback" not in result.err
    for words in expected:
        assert words in lines[-1], (words, lines[-1])


@pytest.mark.parametrize(
    ("overrides", "expected"),
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
        (["train.seq_len=[1"], ["'train.seq_len=[1'", "a bracket has no partner"]),
        (["train.steps=many"], ["train.steps=many: give a whole number at least 1"]),
        (["train.steps=1.5"], ["train.steps=1.5: give a whole number at least 1"]),
        (["grid.seed=3"], ["grid.seed=3: give a list, such as 'grid.seed=[3]'"]),
        (["+grid.train.lrr=[1]"], ["'grid.train.lrr'", "did you mean 'grid.train.lr'"]),
        (["grid.train.lr=[1]"], ["+grid.train.lr"]),
        (["grid.scheme=[]"], ["grid.scheme"]),
        (["+overrides.scheme.rope.rope_thta=3"], ["'rope_thta'", "did you mean 'rope_theta'"]),
        (["size.n_heads=5"], ["size.n_heads 5", "size.d_model 16"]),
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
        (["+evaluate.key_value_uuid.lengths=[512]"], ["lengths and length_multiples change nothing"]),
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
def test_sweep_rejects_bad_input(script, overrides, expected):
    assert_error(script("sweep", *MINIATURE, *overrides), *expected)


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("train.length=64", "train.seq_len"),
        ("train.batch=8", "train.batch_size"),
        ("++train.records=0", "train.synthetic_fraction"),
        ("size.width=16", "size.d_model"),
        ("size={layers: 1}", "size.n_layers"),
        ("data.tokenizer.size=300", "data.tokenizer.vocab_size"),
        ("runtime.results=results", "runtime.results_dir"),
        ("grid.extend=[rope]", "grid.extended_schemes"),
        ("adjust.scheme.rope.rope_theta=500", "overrides.scheme.rope.rope_theta"),
        ("evaluate.key_value.multiples=[1]", "evaluate.key_value.length_multiples"),
        ("+evaluate.fixed_targets.extensions=false", "evaluate.fixed_targets.include_extensions"),
        ("+grid.train.length=[16]", "grid.train.seq_len"),
        ("+finetune.pi={train: {steps: 2, length: 32}}", "finetune.pi.train.seq_len"),
        ("overrides.scheme.rope.base=500", "rope_theta"),
        ("evaluate.key_value.settings.contexts=4", "evaluate.key_value.settings.num_contexts"),
        ("+overrides.scheme.rope.base=500", "rope_theta"),
        ("+evaluate.prefix.settings.horizon=16", "max_context"),
        ("train.synthetic_task=records", "associative_recall"),
        ("grid.scheme=[forgetting]", "fox"),
        ("grid.scheme=[rope_nope]", "rnope"),
        ("grid.scheme=[rope_window_nope]", "swan"),
        ("grid.scheme=[linear]", "linear_attention"),
        ("grid.scheme=[linear_rope]", "linear_attention_rope"),
        ("grid.extension=[sink_window]", "streaming_llm"),
        ("grid.extension=[drop_rope]", "drope"),
        ("+evaluate.adjacent={lengths: [16]}", "position_resolution"),
        ("figures=[long_perplexity]", "longppl"),
    ],
)
def test_the_error_for_an_old_name_has_the_new_name(script, override, new):
    assert_error(script("sweep", *MINIATURE, override), f"; it is called {new!r} now")


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("subject=hugging_face", "lm"),
        ("subject.name=model", "lm.name"),
        ("lm.kind=checkpoint", "native"),
        ("evaluation.multiples=[1]", "evaluation.length_multiples"),
        ("scheme=forgetting", "fox"),
        ("task=long_perplexity", "longppl"),
        ("scheme.build.base=500", "rope_theta"),
    ],
)
def test_the_error_of_evaluate_for_an_old_name_has_the_new_name(script, override, new):
    assert_error(script("evaluate", override), f"; it is called {new!r} now")


def test_a_missing_gpu_is_reported(script):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert_error(script("sweep", *MINIATURE, "runtime.device=cuda"), "no CUDA device", "give cpu or auto")


@pytest.mark.parametrize(
    ("overrides", "expected"),
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
def test_a_kernel_that_cannot_run_is_reported(script, overrides, expected):
    """Reported by a training before its first step, by an evaluation before its first cell."""
    import torch

    if torch.cuda.is_available():
        overrides = [*overrides, "runtime.device=cpu"]
    small = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
    assert_error(script("train", *small, *overrides), *expected)
    assert script("train", *small, overrides[0]).code == 0
    if "flex" not in expected[0]:  # the CPU supports its forward pass
        assert_error(script("evaluate", *small, "evaluation.length_multiples=[1]", *overrides), *expected)


def test_an_unknown_dtype(script):
    """Reported by training and evaluation, with any kernel."""
    small = ("size.n_layers=1", "size.d_model=8", "size.n_heads=2", "train.steps=2", "train.seq_len=8")
    assert_error(script("train", *small, "train.dtype=float64"), "float64", "bfloat16")
    assert script("train", *small).code == 0
    assert_error(script("evaluate", *small, "evaluation.dtype=float16"), "float16", "bfloat16")


def test_train_rejects_bad_input(script, tmp_path, monkeypatch):
    assert_error(script("train", "scheme=rop"), "scheme 'rop'", "did you mean 'rope'")
    assert_error(script("train", "scheme.build.rope_thet=3"), "rope_thet")
    assert_error(script("train", "+scheme.build.rope_thet=3"), "'rope_thet'", "rope_theta")
    assert_error(script("train", "scheme.build._target_=nowhere.Nothing"), "'nowhere'", "allow=[nowhere]")
    allowed = script("train", "scheme.build._target_=nowhere.Nothing", "allow=[nowhere]")
    assert_error(allowed, "nowhere.Nothing", "PYTHONPATH")
    # Fault: a traceback.
    (tmp_path / "broken_scheme.py").write_text("class Mine\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    broken = script("train", "scheme.build._target_=broken_scheme.Mine", "allow=[broken_scheme]")
    assert_error(broken, "broken_scheme.py", "line 1", "mend it")
    muon = ["scheme=nope", "scheme.build._target_=posbench.training.muon.Muon", "+scheme.build.lr=0.1"]
    assert_error(script("train", *muon), "PositionScheme")


@pytest.mark.parametrize(
    ("overrides", "expected"),
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
def test_sweep_rejects_settings_out_of_range_before_training(script, overrides, expected):
    result = script("sweep", *MINIATURE, "size.n_layers=2", *overrides)
    assert_error(result, *expected)
    assert "train" not in result.out


def test_a_scheme_whose_settings_do_not_allow_the_length(script):
    short = ("grid.scheme=[randomized_rope]", "+overrides.scheme.randomized_rope.max_position=32")
    assert_error(script("sweep", *MINIATURE, *short), "below 32", "larger max_position")


def test_evaluate_rejects_bad_input(script):
    assert_error(script("evaluate", "train.steps=7"), "no trained model", "posbench train")
    assert_error(script("evaluate", "extension=yarm"), "extension 'yarm'")
    assert_error(script("evaluate", "task=key_valu"), "task 'key_valu'")


def test_an_extension_that_a_scheme_does_not_support(script):
    small = (
        "size.n_layers=1",
        "size.d_model=8",
        "size.n_heads=2",
        "train.steps=2",
        "train.seq_len=8",
        "scheme=alibi",
    )
    assert script("train", *small).code == 0
    assert_error(script("evaluate", *small, "extension=yarn"), "inv_freq", "ALiBi")
    # A grid leaves the combination out and reports it.
    grid = (
        "grid.scheme=[alibi]",
        "grid.extension=[yarn]",
        "grid.extended_schemes=[]",
        "train.steps=2",
        "figures=[]",
    )
    result = script("sweep", *MINIATURE, *grid)
    assert result.code == 0
    assert "left out: alibi + yarn" in result.out


def test_figures_rejects_a_folder_without_rows(script, tmp_path):
    assert_error(script("figures"), "no results folder", "posbench sweep experiment=demo")
    assert_error(script("figures", "experiments=[demo]"), "demo", "posbench sweep")


def test_a_results_folder_that_cannot_be_written(script, tmp_path):
    # A file in place of the folder stops root too.
    (tmp_path / "file").touch()
    result = script("sweep", *MINIATURE, f"runtime.results_dir={tmp_path}/file/results")
    assert_error(result, "file/results", "cannot be written")


@pytest.mark.parametrize(
    "content", [None, b"", bytes(range(128, 256)) * 100], ids=["missing", "empty", "not text"]
)
def test_a_text_file_that_is_missing_or_malformed(script, tmp_path, content):
    path = tmp_path / "book.txt"
    if content is not None:
        path.write_bytes(content)
    assert_error(script("sweep", *MINIATURE, "data=files", f"data.path={path}"), str(path))


def test_a_hub_corpus_without_a_network(script, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_error(script("sweep", *MINIATURE, "data=wikitext103"), "wikitext103", "sources", "files")
