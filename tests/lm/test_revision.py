"""A revision on the hub is that of the configuration, the weights and the tokenizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pretrained_models import saved

from posbench.config.lm import LMSettings
from posbench.errors import ConfigError
from posbench.lm.hf_loading import load_config

PROGRAM = """
from posbench.config.data import DataSettings
from posbench.config.lm import LMSettings
from posbench.plan.pretrained import plan_pretrained
plan = plan_pretrained(LMSettings("hugging_face", name="me/tiny", revision="v2"), DataSettings())
tokenizer = plan.settings.data.tokenizer
print(plan.pretrained.settings.revision, tokenizer.revision, plan.settings.data.bos)
"""


@pytest.mark.slow
def test_the_tokenizer_is_that_of_the_revision(tmp_path: Path) -> None:
    """Fault: the tokenizer was always that of main, also for the weights of another revision."""
    commit = "b" * 40
    repository = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(saved(tmp_path / "model", "llama"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text(commit)
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [commit, commit, "0"]


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    """Fault: the revision was ignored."""
    with pytest.raises(ConfigError, match="a folder has none"):
        load_config(LMSettings("hugging_face", name=str(tmp_path), revision="v2"))
