"""Text of the user, by the commands in configs/data/files.yaml."""

import pytest

SMALL = [
    *("scheme=rope", "size.n_layers=1", "size.d_model=16", "size.n_heads=2", "data=files"),
    *("train.seq_len=16", "train.steps=2", "train.batch_size=2", "train.val_interval=2"),
    *("train.val_batches=1", "train.synthetic_fraction=0"),
]


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    for split in ("train", "validation", "test"):
        (folder / split).mkdir(parents=True)
        for number in range(4):
            (folder / split / f"{number}.txt").write_text(f"the {number}th text of {split}. " * 20)
    return folder


def test_one_path(script, texts):
    result = script("train", *SMALL, f"data.path={texts}")
    assert result.code == 0, result


def test_a_path_for_each_split(script, texts):
    each = ", ".join(f"{split}: {texts / split}" for split in ("train", "validation", "test"))
    result = script("train", *SMALL, f"data.paths={{{each}}}")
    assert result.code == 0, result
    again = [f"data.paths.{split}={texts / split}" for split in ("train", "validation", "test")]
    result = script("train", *SMALL, *again)
    assert result.code == 0, result
    assert "0 to train" in result.out or "[1/1]" not in result.out, "the same model"
