"""Questions about one context: how many share a forward pass, and that their scores are those of each alone."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from posbench.config import hydra_app
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size, build_scheme

SIZE = Size(n_layers=2, d_model=32, n_heads=2)
CONTEXT, QUESTIONS, TOKENS = 90, 12, 4


def lm_of(scheme: str, max_tokens: int) -> NativeLM:
    settings = hydra_app.load_group("scheme")[scheme]["build"]
    model = GPT(SIZE, 64, build_scheme(settings, SIZE.shape(128), seed=0), seed=0).double()
    return NativeLM(model, 128, KernelDispatcher("auto"), nullcontext, max_tokens)


def prompt() -> Prompt:
    draw = np.random.default_rng(0)
    return Prompt(draw.integers(64, size=CONTEXT), draw.integers(64, size=(QUESTIONS, TOKENS)), 2)


def on_a_gpu(lm: NativeLM, given: Prompt | None = None) -> int:
    """Returns the number of questions that a GPU would read at once."""
    lm.device = torch.device("cuda")
    size = lm.scoring_batch_size(given or prompt())
    lm.device = torch.device("cpu")
    return size


@pytest.mark.parametrize("scheme", ["rope", "alibi", "shaw", "softmax_one", "window"])
def test_a_context_as_long_as_a_batch_is_read_by_all_questions_at_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question was a batch of its own, which copied the context: 8 times as slow over 64k tokens on a GPU."""
    lm, one_by_one = lm_of(scheme, CONTEXT), lm_of(scheme, CONTEXT)
    assert lm.scoring_batch_size(prompt()) == lm.batch_size_for(prompt()) == 1
    assert on_a_gpu(lm) == QUESTIONS + 6
    monkeypatch.setattr(lm, "scoring_batch_size", lambda one: QUESTIONS)
    (found,), (expected,) = lm.loglikelihood([prompt()]), one_by_one.loglikelihood([prompt()])
    np.testing.assert_allclose(found.logprob, expected.logprob, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scheme", ["path", "cope"])
def test_a_scheme_that_reads_the_context_anew_has_smaller_batches(scheme: str) -> None:
    assert on_a_gpu(lm_of(scheme, CONTEXT)) == 1


@torch.no_grad()
def test_a_long_context_limits_the_sequences() -> None:
    """A bias that depends on content is written out for one query of each sequence and all keys."""
    long = Prompt(np.zeros(1 << 20, int), np.zeros((64, 2), int), 1)
    assert on_a_gpu(lm_of("rope", 16384), long) == 3
