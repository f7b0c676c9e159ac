"""Batching: which prompts share a forward pass, which share a prefill, and the order of results."""

import numpy as np
import pytest
import torch

from posbench.lm.batching import input_ids, run_batches
from posbench.lm.interface import Prompt

MAX_TOKENS = 40


def prompt(context: int, continuations: int, n_scored: int = 1, candidates: bool = False) -> Prompt:
    """Every id is the number of continuations, so that a row's origin is visible in its sum."""
    ids = np.full(context, continuations), np.full((continuations, 3), continuations)
    return Prompt(*ids, n_scored, candidate_ids=np.arange(2) if candidates else None)


PROMPTS = [
    *[prompt(7, 1)] * 5,
    prompt(7, 1, n_scored=2),
    prompt(7, 1, candidates=True),
    prompt(8, 1),
    prompt(7, 6),
    prompt(7, 6),
    prompt(7, 1),
]


@pytest.mark.parametrize("caches", [True, False])
def test_equal_shapes_share_a_pass_and_equal_contexts_a_prefill(caches: bool) -> None:
    passes, prefills = [], []

    def prefill(one: Prompt) -> int | None:
        prefills.append(one)
        return len(one.context) - 1 if caches else None

    def forward(ids: np.ndarray, cache: int | None, one: Prompt) -> tuple[torch.Tensor, ...]:
        passes.append((one.n_scored, *ids.shape, cache))
        return torch.from_numpy(ids.sum(1)), torch.from_numpy(ids)

    results = list(
        run_batches(PROMPTS, forward, batch_size=lambda one: MAX_TOKENS // (one.length + 1), prefill=prefill)
    )
    assert [one for one, _ in results] == PROMPTS
    shared = [(1, 4, 4, 6), (1, 2, 4, 6)] if caches else [(1, 4, 10, None), (1, 2, 10, None)]
    assert passes == [
        (1, 4, 10, None),
        (1, 1, 10, None),
        (2, 1, 10, None),
        (1, 1, 10, None),
        (1, 1, 11, None),
        *shared,
        *shared,
        (1, 1, 10, None),
    ]
    assert prefills == PROMPTS[8:10]
    for one, (total, ids) in results:
        count = len(one.continuations)
        assert np.array_equal(ids, input_ids(one, 6 if caches and count > 1 else None))
        assert total.tolist() == [count * ids.shape[1]] * count


def test_input_ids_after_a_cache_begin_with_the_last_id_of_the_context() -> None:
    one = Prompt(np.array([1, 2, 3]), np.array([[4, 5], [6, 7]]), 1)
    assert input_ids(one).tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 6, 7]]
    assert input_ids(one, cache=2).tolist() == [[3, 4, 5], [3, 6, 7]]
    empty = Prompt(np.array([], int), np.array([[4, 5]]), 1)
    assert input_ids(empty).tolist() == [[4, 5]]
