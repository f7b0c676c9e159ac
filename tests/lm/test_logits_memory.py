"""The memory of a black box beside its logits."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from posbench.lm.hugging_face import candidate_logprobs, score_targets

VOCABULARY = 64


class Allocations(TorchDispatchMode):
    """Records the largest number of elements of a new tensor; views allocate none."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, torch.Tensor)}
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor) and each.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, each.numel())
        return result


def test_logits_are_normalized_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log-probabilities of all scored positions were in memory at once: 5 GB at 8k tokens and 152k ids."""
    logits = torch.randn(3, 50, VOCABULARY, generator=torch.Generator().manual_seed(0))
    target = torch.randint(VOCABULARY, (3, 50), generator=torch.Generator().manual_seed(1))
    ids = torch.arange(5) * 7
    half = logits.bfloat16()  # is cast to float32, which the chunks limit as well
    monkeypatch.setattr("posbench.lm.hugging_face.SOFTMAX_LOGITS", 4 * VOCABULARY)
    with Allocations() as allocations:
        logprob, greedy = score_targets(logits, target)
        candidates = candidate_logprobs(logits[:, 0], ids)
    assert allocations.largest <= 4 * VOCABULARY
    with Allocations() as allocations:
        score_targets(half, target)
        candidate_logprobs(half[0], ids)
    assert allocations.largest <= 4 * VOCABULARY
    nats = logits.log_softmax(-1)
    torch.testing.assert_close(logprob.float(), nats.gather(-1, target[..., None])[..., 0])
    torch.testing.assert_close(candidates.float(), nats[:, 0, ids])
    assert torch.equal(greedy, logits.argmax(-1))
