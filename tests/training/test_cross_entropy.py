"""Chunked cross-entropy against torch.nn.functional.cross_entropy: values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from posbench.training.cross_entropy import IGNORE_INDEX, cross_entropy


@pytest.mark.parametrize("logits", [1, 50, 7 * 50, 1 << 20])
def test_equals_torch(logits: int) -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, 8, generator=draw, dtype=torch.float64).requires_grad_()
    weight = torch.randn(50, 8, generator=draw, dtype=torch.float64).requires_grad_()
    target = torch.randint(50, (30,), generator=draw)
    target[::7] = IGNORE_INDEX
    found = cross_entropy(hidden, weight, target, logits)
    expected = F.cross_entropy(hidden @ weight.T, target, reduction="sum")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    for one, other in zip(
        torch.autograd.grad(3 * found, [hidden, weight]),
        torch.autograd.grad(3 * expected, [hidden, weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("which", [0, 1])
def test_only_the_required_gradients_are_computed(which: int) -> None:
    leaves = [torch.randn(30, 8), torch.randn(50, 8)]
    leaves[which].requires_grad_()
    target = torch.randint(50, (30,))
    cross_entropy(*leaves, target, 100).backward()
    expected = leaves[which].detach().clone().requires_grad_()
    F.cross_entropy(
        (expected if which == 0 else leaves[0]) @ (expected if which else leaves[1]).T,
        target,
        reduction="sum",
    ).backward()
    torch.testing.assert_close(leaves[which].grad, expected.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not cross_entropy(*leaves, target, 100).requires_grad


def test_without_gradients_only_the_logits_are_computed() -> None:
    """Fault: every validation computed the gradient of the head too."""
    hidden, weight = torch.randn(30, 8), torch.randn(50, 8).requires_grad_()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cross_entropy(hidden, weight, torch.randint(50, (30,)), 100)
    assert counter.get_total_flops() == 2 * 30 * 8 * 50


def test_under_autocast_products_are_bfloat16_and_sums_float32() -> None:
    hidden, weight = torch.randn(64, 32).requires_grad_(), torch.randn(300, 32).requires_grad_()
    target = torch.randint(300, (64,))
    exact = cross_entropy(hidden, weight, target)
    with torch.autocast("cpu", torch.bfloat16):
        chunked = cross_entropy(hidden, weight, target, 300 * 10)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, exact, rtol=1e-2, atol=0)
    for one, other in zip(
        torch.autograd.grad(chunked, [hidden, weight]),
        torch.autograd.grad(exact, [hidden, weight]),
        strict=True,
    ):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0, atol=0.03 * float(other.abs().max()))


def test_chunks_compile_to_one_graph() -> None:
    """A model with the vocabulary of a tokenizer is compiled together with its loss."""
    hidden, weight = torch.randn(30, 8).requires_grad_(), torch.randn(50, 8).requires_grad_()
    target = torch.randint(50, (30,))
    run = torch.compile(cross_entropy, backend="aot_eager", fullgraph=True)
    found, expected = run(hidden, weight, target, 7 * 50), cross_entropy(hidden, weight, target, 7 * 50)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, [hidden, weight]),
        torch.autograd.grad(expected, [hidden, weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_retained_graph_gives_its_gradient_twice() -> None:
    """The backward pass overwrites the logits, which a second pass must not take for log-probabilities."""
    hidden, weight = torch.randn(30, 8).requires_grad_(), torch.randn(50, 8).requires_grad_()
    loss = cross_entropy(hidden, weight, torch.randint(50, (30,)))
    first = torch.autograd.grad(loss, [hidden, weight], retain_graph=True)
    second = torch.autograd.grad(2 * loss, [hidden, weight])
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(2 * one, other)
