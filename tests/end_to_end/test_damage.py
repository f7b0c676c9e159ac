"""One flipped byte in a file of a miniature experiment once changed numbers in silence or ended in a traceback.

Each kind of file that is read back for a number is damaged at every 5% of its bytes.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from posbench import checksums
from posbench.data import build
from posbench.errors import DataError
from posbench.report import experiment, report_writer
from posbench.results.rows import RowStore, read_rows
from posbench.training import checkpoints

RUN = (
    "experiment=miniature",
    "grid.scheme=[rope]",
    "grid.extension=[]",
    "data=files",
    "data.tokenizer.kind=bpe",
    "data.tokenizer.vocab_size=300",
    "figures=[fixed_targets]",
    "train.steps=10",
    "runtime.launcher=inline",
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results and the cache of a miniature experiment, and a checkpoint of its training."""
    folder = tmp_path_factory.mktemp("intact") / "run"
    texts = folder.parent.parent / "texts"
    texts.mkdir()
    for index in range(40):
        (texts / f"{index}.txt").write_text(" ".join(f"{index * n * n % 977} words" for n in range(300)))
    ended = sweep(folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (final,) = folder.glob("results/models/*/final")
    weights = checkpoints.tensors(final, "model")
    assert weights is not None
    checkpoints.write(folder / "step-00000007", {"model": weights, "optimizer": weights}, {"step": 7})
    return folder


def sweep(folder: Path, *overrides: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a miniature experiment in a process of its own."""
    script = Path(__file__).parents[2] / "scripts" / "sweep.py"
    where = [f"runtime.results_dir={folder / 'results'}", f"runtime.cache_dir={folder / 'cache'}"]
    where += [f"data.path={folder.parent.parent / 'texts'}"]
    command = [sys.executable, str(script), *RUN, *where, *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def raises(function: Callable[[Path], object], path: Path) -> bool:
    try:
        function(path)
    except DataError:
        return True
    return False


def is_no_checkpoint(path: Path) -> bool:
    return checkpoints.read_metadata(path.parent) is None


def is_no_document(path: Path) -> bool:
    try:
        checksums.read_json(path)
    except checksums.DamageError:
        return True
    return False


def is_no_cell(path: Path) -> bool:
    return not RowStore(path.parent).has(path.stem)


def is_no_corpus(path: Path) -> bool:
    return build.find_damage(path.parent) is not None


# Pattern of one file -> whether its damage is noticed.
KINDS: dict[str, Callable[[Path], bool]] = {
    "results/models/*/final/model.safetensors": is_no_checkpoint,
    "results/models/*/final/metadata.json": is_no_checkpoint,
    "step-00000007/model.safetensors": is_no_checkpoint,
    "step-00000007/optimizer.safetensors": is_no_checkpoint,
    "step-00000007/metadata.json": is_no_checkpoint,
    "results/cells/*.parquet": is_no_cell,
    "results/cells/*.json": is_no_cell,
    "results/sweeps/*.json": is_no_document,
    "results/jobs/*.json": is_no_document,
    "results/miniature/rows.parquet": lambda path: raises(read_rows, path),
    "results/miniature/experiment.json": lambda path: raises(experiment.read_metadata, path.parent),
    # The report is drawn again.
    "results/miniature/report.json": lambda path: not report_writer._stamp(path.parent)["inputs"],
    "cache/*/meta.json": is_no_corpus,
    "cache/*/tokenizer.json": is_no_corpus,
    "cache/*/train.bin": is_no_corpus,
    "cache/*/test.starts.npy": is_no_corpus,
    "cache/*/validation.names.json": is_no_corpus,
}


@pytest.mark.parametrize("pattern", KINDS)
def test_one_flipped_byte_is_noticed(pattern: str, intact: Path, tmp_path: Path) -> None:
    """A flipped byte of weights, tokens, labels and metadata once passed, or ended in a traceback."""
    source = sorted(intact.glob(pattern))[0]
    whole = source.read_bytes()
    siblings = source.parent.glob(f"{source.stem}.*" if "cells" in pattern else "*.*")
    paths = [path for path in siblings if path.is_file()]
    for percent in (None, *range(0, 101, 5)):
        folder = tmp_path / str(percent)
        folder.mkdir()
        for path in paths:
            os.link(path, folder / path.name)
        if percent is not None:
            changed = bytearray(whole)
            changed[(len(whole) - 1) * percent // 100] ^= (0x01, 0x20, 0xFF)[percent % 3]
            (folder / source.name).unlink()
            (folder / source.name).write_bytes(changed)
        assert KINDS[pattern](folder / source.name) == (percent is not None), percent


def test_the_manifest_of_sources_is_verified() -> None:
    """A flipped byte of the list of sources once made another corpus."""
    whole = resources.files("posbench.data").joinpath("sources.manifest").read_bytes()
    assert checksums.verify_bytes(whole)
    for percent in range(0, 101, 5):
        changed = bytearray(whole)
        changed[(len(whole) - 1) * percent // 100] ^= 0x01
        assert not checksums.verify_bytes(bytes(changed))


@pytest.mark.parametrize("content", ["[]", "{}", "{", "", "null", '{"figures": 3}', "\x00"])
def test_an_experiment_without_its_settings_names_the_command_that_makes_it_again(
    content: str, tmp_path: Path
) -> None:
    """experiment.json with [], {} or { was a traceback."""
    folder = tmp_path / "miniature"
    folder.mkdir()
    (folder / "rows.parquet").touch()
    (folder / "experiment.json").write_text(content)
    with pytest.raises(DataError, match="run posbench sweep experiment=miniature again") as error:
        experiment.draw_report(folder, lambda group, name: {})
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_damaged_files_are_made_again_to_the_same_rows(intact: Path, tmp_path: Path) -> None:
    """A damaged model was evaluated as if nothing were wrong, and a damaged tokenizer's name was refused for ever."""
    shutil.copytree(intact, tmp_path / "copy")
    folder = tmp_path / "copy"
    for pattern in ("results/models/*/final/model.safetensors", "cache/*/meta.json", "results/cells/*.json"):
        path = sorted(folder.glob(pattern))[0]
        content = path.read_bytes()
        middle = content.index(b"bpe-300") if path.name == "meta.json" else len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    dead = subprocess.Popen(["true"])
    dead.wait()
    (model,) = folder.glob("results/models/*")
    left = [model / f"step-00000007.{dead.pid}.tmp", folder / f"results/cells/.a.parquet.{dead.pid}.tmp"]
    left[0].mkdir()
    left[1].touch()
    ended = sweep(folder)
    assert ended.returncode == 0, ended.stderr
    assert len([line for line in ended.stderr.splitlines() if "set aside" in line]) == 4, ended.stderr
    assert not any(path.exists() for path in left)
    rows = "results/miniature/rows.parquet"
    assert (folder / rows).read_bytes() == (intact / rows).read_bytes()


def test_an_old_corpus_with_a_damaged_tokenizer_is_noticed(intact: Path, tmp_path: Path) -> None:
    """ "jytes" for the tokenizer was refused for ever; metadata of older versions has no checksum."""
    (source,) = intact.glob("cache/*/meta.json")
    shutil.copytree(source.parent, tmp_path / "old")
    meta = json.loads(source.read_bytes())
    del meta[checksums.KEY], meta["sha256"]
    (tmp_path / "old" / "meta.json").write_text(json.dumps(meta))
    assert build.find_damage(tmp_path / "old") is None
    del meta["sizes"]["tokenizer.json"]
    (tmp_path / "old" / "meta.json").write_text(json.dumps(meta | {"tokenizer": "jytes"}))
    assert "jytes" in str(build.find_damage(tmp_path / "old"))


@pytest.mark.slow
def test_several_processes_find_one_damaged_model(intact: Path, tmp_path: Path) -> None:
    """One of two processes that found the same damaged model ended with FileNotFoundError."""
    final = tmp_path / "final"
    shutil.copytree(next(intact.glob("results/models/*/final")), final)
    with (final / "model.safetensors").open("r+b") as file:
        file.write(b"damage")
    code = (
        "import pathlib, sys, time\nfrom posbench.training import checkpoints\n"
        "print(flush=True); sys.stdin.read()\n"
        f"assert checkpoints.read_metadata(pathlib.Path({str(final)!r})) is None"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    for process in both:  # both are ready before the first begins
        process.stdout.readline()  # type: ignore[union-attr]
    for process in both:
        process.stdin.close()  # type: ignore[union-attr]
    errors = [process.stderr.read() for process in both]  # type: ignore[union-attr]
    assert [process.wait() for process in both] == [0, 0], errors
    assert [path.name for path in tmp_path.iterdir()] == ["final.damaged-1"]


@pytest.mark.parametrize(
    ("present", "limit", "unwritable"),
    [
        ((), 1_000, "cache/"),  # the tokenizer
        ((), 50_000, "cache/"),  # the tokens
        (("cache",), 30_000, "results/models/"),
        (("cache", "results/models"), 1_000, "results/sweeps/"),
    ],
)
@pytest.mark.slow
def test_files_that_cannot_grow_are_one_line(
    present: tuple[str, ...], limit: int, unwritable: str, intact: Path, tmp_path: Path
) -> None:
    """A full disk ended in a SafetensorError with a traceback, or in "cannot be written (None)"."""
    folder = tmp_path / "full"
    for name in present:
        shutil.copytree(intact / name, folder / name)
    ended = sweep(
        folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert unwritable in line
    assert "cannot be written (File too large): make room" in line
    assert not [*folder.rglob("*.tmp"), *folder.rglob("*.damaged-*")]
    if "sweeps" in unwritable:
        assert sweep(folder).returncode == 0
        rows = "results/miniature/rows.parquet"
        assert (folder / rows).read_bytes() == (intact / rows).read_bytes()
