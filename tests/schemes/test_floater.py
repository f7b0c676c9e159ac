"""FLOATER against SciPy's DOP853 and the adjoint method. Tolerance 2e-5, the error of its own steps; gradients 1e-4.

The authors' module (flow_func_linear) is written out in NumPy, with this scheme's tanh.
"""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from calls import SHAPE
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from posbench.errors import ConfigError
from posbench.position.geometry import Geometry
from posbench.schemes.floater import Floater

LEN = SHAPE.train_len


def floater(knots: int = 16) -> Floater:
    torch.manual_seed(0)
    scheme = Floater(SHAPE, knots=knots).double()
    with torch.no_grad():
        scheme.into_W.normal_(std=0.3)
        scheme.out_W.normal_(std=0.3)
    return scheme


def by_scipy(scheme: Floater, positions: np.ndarray) -> np.ndarray:
    """Returns the paths (T, L, W), each block solved by itself to 1e-11 with adaptive steps."""
    into, bias = scheme.into_VW.detach().numpy(), scheme.into_W.detach().numpy()
    out, last = scheme.out_WW.detach().numpy(), scheme.out_W.detach().numpy()

    def velocity(t: float, p: np.ndarray) -> np.ndarray:
        return np.tanh(np.append(p, t) @ into + bias) @ out + last

    times = positions * 2.55 / LEN
    paths = []
    for start in scheme.start_LW.detach().numpy():
        found = solve_ivp(
            velocity, (0, times.max() + 1), start, "DOP853", dense_output=True, rtol=1e-11, atol=1e-11
        )
        paths.append(found.sol(times).T)
    return np.stack(paths, 1)


def at_positions(positions: Tensor) -> Geometry:
    index = torch.arange(len(positions))
    return Geometry(index, index, positions, positions, len(positions), None)


def test_equals_scipy_far_past_the_training_length() -> None:
    scheme = floater()
    path = scheme.path(Geometry.from_range(0, 4 * LEN)).detach().numpy()
    np.testing.assert_allclose(path, by_scipy(scheme, np.arange(4 * LEN)), rtol=0, atol=2e-5)


def test_equals_scipy_between_tokens_and_between_knots() -> None:
    for knots, tolerance in ((16, 2e-5), (4, 3e-3)):
        positions = np.linspace(0, 2 * LEN, 37)
        path = floater(knots).path(at_positions(torch.from_numpy(positions))).detach().numpy()
        np.testing.assert_allclose(path, by_scipy(floater(knots), positions), rtol=0, atol=tolerance)


def test_the_solver_is_of_fourth_order() -> None:
    """Halving the step divides the error at the end of the path by about 16."""
    exact = by_scipy(floater(), np.array([0, 2 * LEN]))[-1]
    errors = [
        np.abs(floater(knots).path(Geometry.from_range(0, 2 * LEN + 1))[-1].detach().numpy() - exact).max()
        for knots in (4, 8, 16)
    ]
    for coarse, fine in pairwise(errors):
        assert 3 < math.log2(coarse / fine) < 5.5


def test_gradients_equal_those_of_the_adjoint_method() -> None:
    """The adjoint method solves another equation backwards in time, with dopri5 to 1e-9. Tolerance 1e-4."""
    scheme = floater()

    class Velocity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = scheme

        def forward(self, t: Tensor, p: Tensor) -> Tensor:
            inner = self.inner
            hidden = torch.tanh(p @ inner.into_VW[:-1] + t * inner.into_VW[-1] + inner.into_W)
            return hidden @ inner.out_WW + inner.out_W

    times = torch.arange(LEN, dtype=torch.float64) * scheme.step
    velocity, settings = Velocity(), {"rtol": 1e-9, "atol": 1e-9}
    expected = odeint_adjoint(
        velocity, scheme.start_LW, times, adjoint_params=tuple(scheme.parameters()), **settings
    )
    mine = scheme.path(Geometry.from_range(0, LEN))
    probe = torch.randn_like(mine) / LEN
    leaves = list(scheme.parameters())
    for one, other in zip(
        torch.autograd.grad((mine * probe).sum(), leaves),
        torch.autograd.grad((expected * probe).sum(), leaves),
        strict=True,
    ):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_equals_torchdiffeq_step_by_step() -> None:
    """The scheme's own solver replaced torchdiffeq's `rk4`, whose graph cost a third of a small model's step."""
    scheme = floater()

    def velocity(t: Tensor, p: Tensor) -> Tensor:
        hidden = torch.tanh(p @ scheme.into_VW[:-1] + t * scheme.into_VW[-1] + scheme.into_W)
        return hidden @ scheme.out_WW + scheme.out_W

    knots = torch.arange(0, 2 * LEN, scheme.knot_spacing)
    expected = odeint(velocity, scheme.start_LW, knots.double() * scheme.step, method="rk4")
    mine = scheme.path(at_positions(knots))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    probe, leaves = torch.randn_like(mine), list(scheme.parameters())
    pairs = [torch.autograd.grad((path * probe).sum(), leaves) for path in (mine, expected)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    # Between knots the rates count too.
    between = scheme.path(at_positions(torch.linspace(0.5, LEN - 1, 9, dtype=torch.float64)))
    assert torch.autograd.gradcheck(
        lambda start: _path_from(scheme, start), scheme.start_LW.detach().clone().requires_grad_()
    )
    assert between.isfinite().all()


def _path_from(scheme: Floater, start_LW: Tensor) -> Tensor:
    other = copy.copy(scheme)
    other._parameters = {**scheme._parameters, "start_LW": start_LW}  # type: ignore[dict-item]
    return other.path(at_positions(torch.linspace(0.5, 2.0 * scheme.knot_spacing, 3, dtype=torch.float64)))


def test_each_block_adds_its_own_path_and_a_pass_solves_once() -> None:
    scheme, geo = floater(), Geometry.from_range(0, LEN)
    solved = []
    path, scheme.path = scheme.path, lambda geo: solved.append(0) or path(geo)  # type: ignore[func-returns-value]
    x_BTW = torch.randn(2, LEN, SHAPE.d_model, dtype=torch.float64)
    for _ in range(2):  # two passes over one geometry, each with a gradient of its own
        out = [scheme.embed(x_BTW, geo, layer) for layer in range(SHAPE.n_layers)]
        for layer in range(SHAPE.n_layers):
            torch.testing.assert_close(out[layer] - x_BTW, path(geo)[None, :, layer].expand_as(x_BTW))
        sum(one.sum() for one in out).backward()
    assert len(solved) == 2
    scheme.embed(x_BTW, replace(geo), 1)  # a layer alone
    assert len(solved) == 3
    copy.deepcopy(scheme)  # tensors left from a pass require gradients and cannot be copied


def test_the_path_begins_at_its_start_and_moves() -> None:
    scheme = floater()
    path = scheme.path(Geometry.from_range(0, LEN)).detach()
    torch.testing.assert_close(path[0], scheme.start_LW.detach(), rtol=0, atol=1e-12)
    assert ((path[-1] - path[0]).norm(dim=-1) > 1).all()


def test_bad_settings() -> None:
    for step, knots in ((0.0, 32), (-1.0, 32), (float("inf"), 32), (None, 0)):
        with pytest.raises(ConfigError, match=rf"floater step {step}, knots {knots}: give a time"):
            Floater(SHAPE, step, knots)
