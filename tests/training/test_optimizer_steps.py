"""One step of training: learning rates, clipping, accumulated gradients, random draws, and the rule of each optimizer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from posbench.config.schema import TrainSettings
from posbench.training.muon import Muon
from posbench.training.optimizers import lr_multiplier
from posbench.training.trainer import Trainer


def gradients(trainer: Trainer) -> tuple[float, Tensor]:
    """Returns the loss of the first step, and the gradients as the optimizers receive them, in one vector."""
    found: list[Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            found.extend(parameter.grad.flatten().clone() for parameter in trainer.model.parameters())

    trainer.optimizers = [(Recorder(trainer.model.parameters()), 1.0)]
    loss = trainer.step(0)
    return loss.item(), torch.cat(found)


def test_learning_rate_rises_stays_and_falls() -> None:
    """Fault: no test noticed a rate that was constant."""
    plan = TrainSettings(steps=100, warmup_fraction=0.1, decay_fraction=0.2)
    # Ten steps up to the peak rate; the last twenty fall by a twentieth each, and a step 100 would have rate 0.
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 50: 1.0, 80: 1.0, 81: 0.95, 90: 0.5, 99: 0.05}
    assert {step: lr_multiplier(plan, step) for step in expected} == pytest.approx(expected)
    constant = TrainSettings(steps=100, warmup_fraction=0.0, decay_fraction=0.0)
    assert [lr_multiplier(constant, step) for step in (0, 50, 99)] == [1.0, 1.0, 1.0]


def test_a_step_takes_its_share_of_each_peak_rate(
    small_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Fault: no test noticed a trainer that left the schedule out."""
    trainer = small_trainer(tmp_path, steps=100, warmup_fraction=0.1, lr=0.003, muon_lr=0.02)
    for step, share in ((0, 0.1), (4, 0.5)):
        trainer.step(step)
        rates = [group["lr"] for each, _ in trainer.optimizers for group in each.param_groups]
        assert rates == pytest.approx([share * 0.02, share * 0.003, share * 0.003])


def test_gradients_are_clipped_to_the_norm(small_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    """Fault: no test noticed gradients that were not clipped."""
    _, plain = gradients(small_trainer(tmp_path, max_grad_norm=0.0))
    _, clipped = gradients(small_trainer(tmp_path, max_grad_norm=1e-3))
    assert plain.norm() > 0.01
    assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped * plain.norm() / 1e-3, plain, rtol=1e-3, atol=1e-6)


def test_accumulated_gradients_are_those_of_the_whole_batch(
    small_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Fault: a test compared weights after updates by Adam, which ignore the scale of gradients.

    Records have fewer targets than text, so that the micro-batches differ in weight.
    """
    trainer = small_trainer(tmp_path, grad_accum_steps=4, max_grad_norm=0.0)
    assert len({len(targets) for *_, targets in trainer.micro_batches(0)[1]}) > 1
    loss_of_parts, parts = gradients(trainer)
    loss, whole = gradients(small_trainer(tmp_path, max_grad_norm=0.0))
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


def test_random_draws_are_a_function_of_seed_and_step(
    small_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Fault: no test noticed draws that were the same in every step, such as equal randomized positions."""

    def draws(seed: int, *steps: int) -> list[float]:
        trainer, found = small_trainer(tmp_path, seed=seed), []
        loss = trainer.loss

        def drawing(tensors: tuple[Tensor, ...]) -> Tensor:
            found.append(torch.rand(()).item())
            return loss(tensors)

        trainer.loss = drawing  # type: ignore[method-assign]
        for step in steps:
            trainer.step(step)
        return found

    first, second = draws(0, 0, 1), draws(1, 0, 1)
    assert len({*first, *second}) == 4
    assert draws(1, 1) == second[1:], "a continued training draws the same"


def test_betas_of_adamw(small_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    """Fault: no test noticed train.beta1 and train.beta2 without effect."""
    (*_, (adamw, _)) = small_trainer(tmp_path, beta1=0.8, beta2=0.95).optimizers
    assert [group["betas"] for group in adamw.param_groups] == [(0.8, 0.95)] * 2


def orthogonal(matrix: Tensor) -> Tensor:
    """Jordan's iteration on the singular values: s <- 3.4445 s - 4.7750 s^3 + 2.0315 s^5, five times, from norm 1."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


def test_two_steps_of_muon_by_hand() -> None:
    """Fault: no test noticed another momentum, none of Nesterov, stacked matrices taken as one, or no factor for tall ones."""
    draw = torch.Generator().manual_seed(0)
    # Three square matrices, a tall one with the factor sqrt(16 / 4), a wide one, and another of the first shape.
    cases = [((24, 8), 3, 1.0), ((16, 4), 1, 2.0), ((4, 16), 1, 1.0), ((8, 8), 1, 1.0)]
    parameters = [nn.Parameter(torch.randn(shape, generator=draw)) for shape, _, _ in cases]
    expected = [parameter.detach().double() for parameter in parameters]
    means = [torch.zeros_like(one) for one in expected]
    muon = Muon([(one, count) for one, (_, count, _) in zip(parameters, cases, strict=True)], lr=0.1)
    for _ in range(2):
        for index, (parameter, (shape, count, factor)) in enumerate(zip(parameters, cases, strict=True)):
            parameter.grad = torch.randn(shape, generator=draw)
            gradient = parameter.grad.double()
            means[index] = 0.95 * means[index] + 0.05 * gradient
            nesterov = 0.05 * gradient + 0.95 * means[index]
            update = torch.cat([orthogonal(matrix) for matrix in nesterov.chunk(count)])
            expected[index] = expected[index] - 0.1 * factor * update
        muon.step()
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), wanted, rtol=0, atol=1e-4)
