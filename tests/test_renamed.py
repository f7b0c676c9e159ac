"""Old names: each leads to a name that exists, and the place of the mistake chooses between several."""

import re
from pathlib import Path

import pytest

from posbench.config.hydra_app import load_group
from posbench.errors import ConfigError
from posbench.instantiate import instantiate
from posbench.renamed import RENAMED, current_name

ROOT = Path(__file__).parents[1]


def test_every_new_name_exists() -> None:
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "posbench").rglob("*.py")]
    words = {
        word for file in files if file.stem != "renamed" for word in re.findall(r"\w+", file.read_text())
    }
    assert {name for names in RENAMED.values() for name in names} <= words


@pytest.mark.parametrize(
    ("group", "name", "old", "new"),
    [
        ("scheme", "rope", "base", "rope_theta"),
        ("scheme", "dape", "base", "bias_scheme"),
        ("scheme", "dape", "hidden", "mlp_width"),
        ("scheme", "shaw", "clip", "max_relative_position"),
        ("scheme", "deberta", "clip", "max_relative_positions"),
        ("scheme", "deberta", "buckets", "position_buckets"),
        ("scheme", "t5", "buckets", "num_buckets"),
        ("scheme", "irope", "chunk", "attention_chunk_size"),
        ("scheme", "irope", "over", "base_scheme"),
        ("scheme", "swan", "every", "no_rope_layer_interval"),
        ("scheme", "cope", "positions", "npos_max"),
        ("extension", "dual_chunk", "chunk", "chunk_size"),
        ("extension", "dual_chunk", "window", "local_window"),
        ("extension", "log_n", "start", "log_base"),
        ("extension", "dynamic_ntk", "start", "original_max_position_embeddings"),
        ("extension", "longrope", "short", "short_factor"),
        ("task", "longppl", "short", "short_context_len"),
        ("task", "multi_document", "positions", "num_positions"),
    ],
)
def test_the_class_decides_which_setting_is_meant(group: str, name: str, old: str, new: str) -> None:
    build = load_group(group)[name]["build"]
    assert new in build
    with pytest.raises(ConfigError, match=f"'{old}'.*; it is called '{new}' now"):
        instantiate({"_target_": build["_target_"], old: 1}, object)


def test_a_name_that_is_current_has_no_other() -> None:
    assert current_name("base", ["base", "dims"]) is None
    assert current_name("seq_len", ["seq_len"]) is None
    assert current_name("nonsense", ["seq_len"]) is None
