"""Laws of attention: every variant is causal, independent of the batch, equal on every kernel, and uses token order.

Losses and scores are comparable between schemes only if no token sees a later one or another sequence, and if the
kernel that runs is a matter of speed alone.
"""

import torch
from variants import TRAIN_LEN, Variant, each_variant, run, tokens

from posbench.kernels.dense import dense
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.position.call import AttentionCall


@each_variant
def test_causal(variant: Variant) -> None:
    """Later tokens do not change earlier outputs: 1e-12."""
    subject = run(variant)
    ids = tokens(2, subject.length)
    changed = ids.clone()
    changed[:, 10:] = tokens(2, subject.length - 10, seed=2)
    before, after = subject(ids), subject(changed)
    torch.testing.assert_close(after[:, :10], before[:, :10], rtol=0, atol=1e-12)
    assert (after[:, 10:] - before[:, 10:]).abs().max() > 1e-3


@each_variant
def test_independent_of_the_batch(variant: Variant) -> None:
    """A sequence has the same outputs alone and in a batch: 1e-12."""
    subject = run(variant)
    ids = tokens(3, subject.length)
    together = subject(ids)
    for row in range(3):
        torch.testing.assert_close(subject(ids[row : row + 1])[0], together[row], rtol=0, atol=1e-12)


@each_variant
def test_kernels_equal_dense(variant: Variant) -> None:
    """The kernel that `auto` selects and `dense` in chunks equal `dense`, values and all gradients: 1e-10."""
    subject = run(variant)
    ids = tokens(2, subject.length)
    auto, reference = KernelDispatcher("auto"), KernelDispatcher("dense")

    def in_chunks(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
        return dense(call, chunk=subject.length * 2 * 4 * 10)

    parameters = list(subject.model.parameters())
    probe = torch.randn(2, subject.length, 32, dtype=torch.float64)
    found = []
    for kernel in (reference, auto, in_chunks):
        hidden = subject(ids, kernel)
        gradients = torch.autograd.grad((hidden * probe).sum(), parameters, allow_unused=True)
        found.append((hidden, [one for one in gradients if one is not None]))
    assert reference.ran == "dense" or (
        reference.ran == "none" and not subject.scheme.traits.softmax_attention
    )
    expected, expected_gradients = found[0]
    for hidden, gradients in found[1:]:
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-10)
        for one, other in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@each_variant
def test_order_matters(variant: Variant) -> None:
    """Exchanging two early tokens changes the output at the last token."""
    subject = run(variant, TRAIN_LEN)
    ids = tokens(1, TRAIN_LEN)
    ids[0, 2], ids[0, 7] = 3, 4
    exchanged = ids.clone()
    exchanged[0, 2], exchanged[0, 7] = 4, 3
    assert (subject(ids)[0, -1] - subject(exchanged)[0, -1]).abs().max() > 1e-6


@each_variant
def test_evaluation_equals_training_and_may_precede_it(variant: Variant) -> None:
    """Kernels without gradients give the same outputs: 1e-12. Tables cached in evaluation can be trained on."""
    subject = run(variant)
    ids = tokens(2, subject.length)
    with torch.inference_mode():
        evaluated = subject(ids).clone()
    trained = subject(ids)
    trained.sum().backward()
    torch.testing.assert_close(evaluated, trained.detach(), rtol=0, atol=1e-12)
