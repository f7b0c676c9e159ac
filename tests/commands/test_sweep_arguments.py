"""The options of posbench sweep beside its settings."""

import pytest

from posbench.commands.sweep import check_multirun, config_folder
from posbench.errors import ConfigError


def test_the_stored_command_has_the_folder_of_ones_own_files() -> None:
    """Fault: the command stored beside the numbers had no --config-dir, without which schemes of one's own are unknown."""
    for given in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]):
        assert config_folder(["name=x", *given, "grid.scheme=[root]"]) == ["--config-dir", "mine"]
    assert config_folder(["name=x"]) == []


@pytest.mark.parametrize("swept", ["train.steps=5,10", "+size=tiny,small", "train.seed=range(0,3)"])
def test_runs_of_multirun_have_folders_of_their_own(swept: str) -> None:
    """Fault: the tables and figures of each run replaced those of the run before, in silence."""
    with pytest.raises(ConfigError, match=r"writes every run to one folder.*name=NAME-\$\{\w+\.\w+\}"):
        check_multirun(["--multirun", "experiment=demo", swept])
    key = swept.lstrip("+").partition("=")[0]
    check_multirun(["--multirun", "experiment=demo", swept, f"name=x-${{{key}.name}}"])
    check_multirun(["--multirun", "experiment=demo,mqar", "figures=[a,b]", "data.path='a,b'"])
    check_multirun(["experiment=demo", swept])


@pytest.mark.parametrize(
    "swept",
    [
        "grid.scheme=[rope],[alibi]",
        "data.path='a','b'",
        'data.path="a","b"',
        "overrides.scheme.rope={rope_theta:5},{rope_theta:6}",
        "experiment=demo,mqar",
    ],
)
def test_runs_of_multirun_with_lists_have_folders_of_their_own(swept: str) -> None:
    """Fault: the check accepted several lists, several quoted values, and several experiments with one name."""
    with pytest.raises(ConfigError, match=r"writes every run to one folder.*name=NAME-\$\{hydra:job.num\}'"):
        check_multirun(["--multirun", "name=x", swept])
    check_multirun(["--multirun", "name=x-${hydra:job.num}", swept])


@pytest.mark.parametrize(
    "given", ["grid.scheme=[rope,alibi]", "+train.x={a:1,b:2}", "data.path=a=b", "~figures"]
)
def test_one_value_of_multirun_is_no_list_of_values(given: str) -> None:
    check_multirun(["--multirun", "experiment=demo", "train.seed=0", given])
