"""configs/data: every choice fits the schema and opens a source."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from posbench.config.data import DataSettings
from posbench.data.corpus import SOURCES
from posbench.data.tokenizer import KINDS

FILES = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_choice_fits_the_schema(path: Path) -> None:
    merged = OmegaConf.merge(OmegaConf.structured(DataSettings), OmegaConf.load(path))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DataSettings)
    assert config.name == path.stem
    assert config.source in SOURCES
    assert config.tokenizer.kind in KINDS
    assert (config.num_keys, config.num_values) == (88, 16)
    if config.source == "hub":
        assert len(config.revision) == 40, "a branch moves; a commit does not"


def test_every_source_has_a_choice() -> None:
    assert {OmegaConf.load(path).source for path in FILES} == set(SOURCES)
