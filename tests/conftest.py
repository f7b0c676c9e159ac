"""The tests of `make smoke`: about a minute on two cores, and something of every layer."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from posbench.commands import run

ROOT = Path(__file__).parent
# Whole files, and single tests as FILE::TEST.
SMOKE = {
    "test_masks.py",
    "test_repository.py",
    "test_tracking.py",
    "test_trackio.py",
    "test_wandb.py",
    "test_wandb_online.py",
    "cluster/test_batch_script.py",
    "sweep/test_claims.py",
    "sweep/test_labels.py",
    "sweep/test_worker.py",
    "commands/test_completion.py::test_a_group_lists_its_choices",
    "commands/test_help.py::test_a_mistake_is_one_line",
    "commands/test_help.py::test_without_a_command_all_are_shown",
    "commands/test_list_and_describe.py::test_every_choice_is_listed",
    "commands/test_list_and_describe.py::test_every_hook_has_a_kind",
    "commands/test_quick_answers.py::test_help_and_lists",
    "data/test_batches.py",
    "data/test_tokenizer.py",
    "end_to_end/test_miniature.py::test_it_leaves_rows_tables_and_figures",
    "export/test_modeling.py",
    "extensions/test_pi.py",
    "extensions/test_streaming_llm.py",
    "extensions/test_yarn.py",
    "kernels/test_dense.py",
    "kernels/test_dispatcher.py",
    "kernels/test_mask_pruning.py",
    "kernels/test_merge.py",
    "lm/test_ensembles.py",
    "properties/test_properties.py",
    "report/test_gate.py",
    "report/test_intervals.py",
    "report/test_row_store.py",
    "schemes/test_alibi.py",
    "schemes/test_fox.py",
    "schemes/test_rope.py",
    "schemes/test_swan.py",
    "tasks/test_key_value.py",
    "tasks/test_passkey.py",
    "training/test_cross_entropy.py",
    "training/test_identity.py",
    "training/test_train.py",
}
# Of the tests that run on every scheme and extension, these.
VARIANTS = {"rope", "alibi", "fox", "rope+yarn", "rope+rerope", "rope+window"}
EVERY_VARIANT = ("golden/", "laws/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of the subset."""
    for item in items:
        if is_smoke(item):
            item.add_marker(pytest.mark.smoke)


def pytest_collection_finish() -> None:
    """Keeps what collection made out of later garbage collections, which commands run after every job."""
    gc.collect()
    gc.freeze()


def is_smoke(item: pytest.Item) -> bool:
    """Whether a test belongs to the subset."""
    path = item.path.relative_to(ROOT).as_posix()
    if path.startswith(EVERY_VARIANT):
        call = getattr(item, "callspec", None)
        return call is not None and call.id in VARIANTS
    return path in SMOKE or f"{path}::{getattr(item, 'originalname', item.name)}" in SMOKE


@pytest.fixture
def posbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `posbench` with arguments; its status, stdout and stderr."""
    monkeypatch.setattr("sys.argv", ["posbench"])  # restored after Hydra's arguments have replaced it

    def call(*arguments: object) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        capsys.readouterr()
        status = run([str(one) for one in arguments])
        return status, *capsys.readouterr()

    return call
