"""Greedy decoding of a model whose logits are not numbers."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.model.gpt import GPT, Size
from posbench.schemes.rope import RoPE

SIZE = Size(2, 32, 2)


def test_generation_by_a_broken_model_is_an_error():
    """Fault: the largest of logits that are not numbers was id 0, which counted as a wrong answer."""
    model = GPT(SIZE, 50, RoPE(SIZE.shape(32)), 0)
    with torch.no_grad():
        model.blocks[0].up.weight[0, 0] = float("nan")
    lm = NativeLM(model, 32, KernelDispatcher("auto"), nullcontext, 1000)
    prompt = Prompt(np.arange(10), np.zeros((1, 1), np.int64), 0, max_new_tokens=4)
    with pytest.raises(FloatingPointError, match="not a number"):
        next(lm.generate([prompt]))


def test_autocast_ends_with_the_forward_pass():
    """Fault: after an evaluation in bfloat16, all later work of the process was computed in bfloat16 too."""
    model = GPT(SIZE, 50, RoPE(SIZE.shape(32)), 0)
    lm = NativeLM(model, 32, KernelDispatcher("auto"), partial(torch.autocast, "cpu", torch.bfloat16), 1000)
    prompt = Prompt(np.arange(10), np.zeros((2, 1), np.int64), 1, candidate_ids=np.arange(5))
    single = Prompt(np.arange(10), np.zeros((1, 1), np.int64), 1)
    list(lm.loglikelihood([prompt, single]))
    list(lm.vocab_logprobs([single]))
    assert not torch.is_autocast_enabled("cpu")
