"""Fault: wrong arguments ran, created folders, or were answered by lines that did not say what is allowed."""

import pytest


def check_refused(posbench, arguments, expected):
    """Checks that a command ends with one line that contains `expected`."""
    status, _, err = posbench(*arguments)
    assert (status, expected in err, len(err.splitlines())) == (2, True, 1), err


@pytest.mark.parametrize("command", ["reproductions", "report", "figures"])
def test_a_results_folder_that_is_missing(posbench, tmp_path, command):
    """Fault: reproductions created it and listed every claim as not measured."""
    status, _, err = posbench(command, f"results_dir={tmp_path}/none")
    assert (status, f"no results folder {tmp_path}/none" in err) == (2, True), err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("out", "expected"), [("none/x.html", "no folder"), (".", "is a folder: give a file")]
)
def test_a_report_where_no_file_can_be(posbench, tmp_path, out, expected):
    """Fault: the folder was created; a folder in place of the file was answered by "make room"."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "experiment.json").touch()
    status, _, err = posbench("report", f"results_dir={tmp_path}", f"out={tmp_path / out}")
    assert (status, expected in err, len(err.splitlines())) == (2, True, 1), err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["benchmark", "--seconds", "-1"], "--seconds -1.0: give a number above 0"),
        (["benchmark", "--seconds", "nan"], "--seconds nan: give a number above 0"),
        (["gpu-check", "--max-minutes", "-1"], "error: --max-minutes -1.0: give a number at least 0"),
        (["gpu-check", "--workers", "0"], "error: --workers 0: give a number at least 1"),
        (["properties", "schemes=[]"], "schemes=[]: give a name"),
        (["figures", "results_dir=.", "experiments=[]"], "experiments=[]: give a name"),
        (["report", "results_dir=.", "experiments=[]"], "experiments=[]: give a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_numbers_and_lists_without_a_meaning(posbench, arguments, expected):
    """Fault: they ran, -1 seconds as 0 and an empty list as every name; one line was about a flag that was not given."""
    check_refused(posbench, arguments, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "scheme=null"], "scheme=null: give a name"),
        (["train", "scheme=1"], "unknown scheme '1'"),
        (["evaluate", "extension=null"], "give a name, extension=none for no extension"),
        (["evaluate", "extension=[pi,yarn]"], "extension=[pi,yarn]: give one value"),
        (["sweep", "experiment=[demo]"], "experiment=[demo]: give one value"),
        (["sweep", "scheme=alibi"], "write 'grid.scheme=[alibi]'"),
        (["sweep", "task=key_value"], "write '+evaluate.key_value.length_multiples=[1,2]'"),
        (["train", "extension=pi"], "it is for posbench evaluate: remove it"),
        (["sweep", "grid.scheme=[rope,alibi"], "a bracket has no partner"),
        (["sweep", "grid.seed=[range(0,3)]"], "write the numbers, such as 'grid.seed=[0,1,2]'"),
        (["train", "runtime.results_dir=null"], "runtime.results_dir=null: give a text"),
        (["train", "--dry-run"], "unknown option --dry-run: see --help"),
        (["train", "--cfg"], "write --cfg job"),
        (["train", "seed=3"], "did you mean 'train.seed'?"),
        (["evaluate", "extension.name=mine"], "extension.name mine without an extension: choose one"),
        (["evaluate", "+extension.finetune.steps=10"], "give the fine-tuned model an extension.name"),
        (["train", "train.warmup_fraction=0.8", "train.decay_fraction=0.5"], "a sum of at most 1"),
        (["results", "export", "--to", "."], "--to .: give a folder by its name"),
        (["export", "x", "--to", "y", "--extension", "none", "--set", "factor=2"], "name another extension"),
        (["train", "scheme=RoPE"], "did you mean 'rope'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_choices_and_options(posbench, arguments, expected):
    """Fault: some raised errors of Hydra, a list silently became its last name, and hints named missing settings."""
    check_refused(posbench, arguments, expected)


@pytest.mark.parametrize(
    "arguments", [["properties", "results_dir={}"], ["gpu-check", "--device", "cpu", "--results", "{}"]]
)
def test_a_folder_that_cannot_be_written_is_known_first(posbench, tmp_path, monkeypatch, arguments):
    """Fault: the error came after every scheme was measured."""
    monkeypatch.setattr("posbench.properties.report.write", None)
    monkeypatch.setattr("posbench.benchmark.gpu_check.check", None)
    (tmp_path / "file").touch()
    given = [one.format(tmp_path / "file" / "new") for one in arguments]
    check_refused(posbench, given, f"because {tmp_path}/file is a file, not a folder")


def test_a_gpu_check_without_a_gpu(posbench, monkeypatch):
    """Fault: the status was 0, as if everything had been checked and found equal."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, _, err = posbench("gpu-check")
    assert (status, "no CUDA device here" in err) == (2, True), err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train", "scheme.build.slope=3"],
            "unknown setting of RoPE 'slope': choose one of interleaved, rope_theta",
        ),
        (["train", "scheme=hwfa", "scheme.build.base_scheme.slope=3"], "unknown setting of RoPE 'slope'"),
        (
            ["train", "scheme=nope", "scheme.build.slope=3"],
            "unknown setting of NoPE 'slope': there are none, remove it",
        ),
        (["sweep", "overrides.scheme.rope.theta=5"], "unknown setting of RoPE 'theta'"),
        (["sweep", "overrides.scheme.ropee.theta=5"], "unknown scheme 'ropee'"),
        (["evaluate", "extension=yarn", "extension.build.factr=2"], "unknown setting of YaRN 'factr'"),
        (["evaluate", "ensemble=nbce", "ensemble.build.foo=2"], "unknown setting of NBCE 'foo'"),
        (["evaluate", "task.build.num_example=2"], "unknown setting of FixedTargets 'num_example'"),
        (["train", "extension.build.factor=2"], "unknown setting 'extension.build.factor'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_setting_that_a_class_does_not_have(posbench, arguments, expected):
    """Fault: the answer was to write it with +, which was then refused."""
    check_refused(posbench, arguments, expected)


def test_a_setting_of_a_class_that_its_file_does_not_list(posbench):
    status, out, err = posbench("train", "scheme=t5", "scheme.build.max_distance=64", "--cfg", "job")
    assert (status, err) == (0, "")
    assert "max_distance: 64" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["figures", "experiments=lgm"], "experiments=lgm: give a list, such as 'experiments=[lgm]'"),
        (["sweep", "grid.scheme=rope"], "grid.scheme=rope: give a list, such as 'grid.scheme=[rope]'"),
        (["evaluate", "evaluation.length_multiples=4"], "such as 'evaluation.length_multiples=[4]'"),
        (["sweep", "+evaluate.sliding.lengths=4"], "evaluate.sliding.lengths: "),
        (["train", "scheme=rope,alibi"], "scheme=rope,alibi: give one value, or add --multirun"),
        (["train", "scheme=rope,alibi"], "(in a sweep 'grid.scheme=[rope,alibi]')"),
        (["train", "train.seed=0,1"], "(in a sweep 'grid.seed=[0,1]')"),
        (["sweep", "train.steps=1,2"], "(in a sweep '+grid.train.steps=[1,2]')"),
        (["train", "scheme="], "unknown scheme '': choose one of alibi, "),
        (["train", "=rope"], "=rope has no key: write KEY=VALUE"),
        (["train", "+scheme=alibi"], "write scheme=alibi to replace it"),
        (["train", "~train.steps"], "~train.steps: only entries of dictionaries can be removed"),
        (["train", "train.steps=1.5"], "train.steps=1.5: give a whole number at least 1"),
        (["train", "train.lr=x"], "train.lr=x: give a number above 0"),
        (["train", "train.steps=null"], "train.steps=null: give a whole number"),
        (["sweep", "runtime.wait=maybe"], "runtime.wait=maybe: give true or false"),
        (["sweep", "runtime.max_minutes=x"], "or null"),
        (["sweep", "grid=3"], "grid=3: give settings by name"),
        (["sweep", "evaluate.key_value=3"], "evaluate.key_value is 3: give settings by name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_of_another_kind(posbench, arguments, expected):
    """Fault: Hydra's own words, which named neither the value nor what is allowed ("give a list, such as [0,1]")."""
    check_refused(posbench, arguments, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "schem=rope"], "; did you mean 'scheme'?"),
        (["train", "train.foo=1"], ""),
        (["sweep", "grid.foo=[1]"], ""),
        (["train", "nonsense=1"], ""),
        (["train", "train.compile=true"], "; did you mean 'runtime.compile'?"),
        (["train", "train.stepz=1"], "; did you mean 'train.steps'?"),
        (["train", "trian.steps=1"], "; did you mean 'train.steps'?"),
        (["train", "train.lenght=1"], "; did you mean 'train.seq_len'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_setting_that_is_meant(posbench, arguments, expected):
    """Fault: schem was taken for scheme.name, and train.foo for train.lr because both begin with "train."."""
    status, _, err = posbench(*arguments)
    assert (status, err.strip().partition("; ")[2]) == (2, expected.removeprefix("; ")), err


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "bad.txt",
            b"abc\xff",
            "bad.txt is not UTF-8 text (byte 3: invalid start byte): repair or remove it",
        ),
        ("empty.txt", b"", "empty.txt holds no text"),
        ("bad.jsonl", b'{"text": "a', "bad.jsonl line 1 is not JSON"),
        ("bad.parquet", b"PAR1", "bad.parquet is not readable parquet"),
    ],
)
def test_a_text_that_cannot_be_read(posbench, tmp_path, monkeypatch, name, content, expected):
    """Fault: the error came after the plan, was printed twice, and advised to run the failed job again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    status, out, err = posbench("train", "data=files", f"data.path={name}")
    errors = [line for line in err.splitlines() if not line.startswith("building the corpus")]
    assert (status, out, len(errors), expected in err) == (2, "", 1, True), err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "scheme=alibi", "extension=yarn"], "inv_freq"),
        (["evaluate", "extension=yarn", "extension.build.factor=-2"], "factor -2"),
        (["evaluate", "task=key_value", "task.build.num_contexts=-1"], "num_contexts"),
        (["evaluate", "evaluation.length_multiples=[]"], "give length_multiples or lengths"),
        (["evaluate", "task=prefix", "evaluation.length_multiples=[]"], "give length_multiples or lengths"),
        (["evaluate", "evaluation.length_multiples=[1.3]"], "not a whole number of tokens"),
        (["evaluate", "task=multi_document"], "needs path"),
        (["search", "task=key_value", "task.build.num_contexts=-1"], "num_contexts"),
        (["search", "scheme=alibi"], "inv_freq"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_found_before_a_model_is_missed(posbench, tmp_path, monkeypatch, arguments, expected):
    """Fault: the answer was to train the model first, which would have been in vain."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("posbench.plan.plan.fingerprint", lambda data: "0" * 16)  # reads no text
    check_refused(posbench, arguments, expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["worker", ".", "abc"], "no sweep 'abc' in .: run posbench sweep first"),
        (["train", "runtime.cache_dir=file"], "because file is a file, not a folder: remove it"),
        (["train", "runtime.results_dir=file/x"], "because file is a file: give another runtime.results_dir"),
        (["sweep", "runtime.results_dir=file/x", "--dry-run"], "because file is a file: give another"),
        (["train", "data.tokenizer={kind: hugging_face, name: /none}"], "'/none': there is no such folder"),
        (["train", "data.tokenizer={kind: hugging_face, name: empty}"], "(it has no file of a tokenizer)"),
        (["export", "none", "--to", "new"], "no folder results/models/none, and "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_or_folder_that_is_another_thing(posbench, tmp_path, monkeypatch, arguments, expected):
    """Fault: "[Errno 2]", "(File exists): make room" and "from one of: "; a dry run passed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    check_refused(posbench, arguments, expected)


def test_a_dry_run_with_a_kernel_that_cannot_train(posbench, tmp_path, monkeypatch):
    """Fault: the dry run passed, and every training of the run failed."""
    monkeypatch.chdir(tmp_path)
    text = "".join(f"{number} bottles of beer on the wall\n" for number in range(4000))
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.txt").write_text(text + split)
    data = "data.paths={train: train.txt, validation: validation.txt, test: test.txt}"
    small = ["experiment=miniature", "runtime.tracker=none", "data=files", data, "grid.extension=[]"]
    kernel = ["runtime.device=cpu", "runtime.kernel=flex"]
    status, _, err = posbench("sweep", *small, *kernel, "--dry-run")
    assert (status, "no backward pass on the CPU" in err) == (2, True), err
