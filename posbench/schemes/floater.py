"""FLOATER: positions as the path of a learned differential equation, added before every block.

Liu, Yu, Dhillon, Hsieh. Learning to Encode Position for Transformer with Continuous Dynamical Model. ICML
2020, section 3. arXiv:2003.09229. The blocks share the dynamics and have a start each; past the training length
the path continues. Time runs as in the authors' code (xuanqing94/FLOATER), 2.55 over the training length, and is an
input of h besides the state. Deviations: h has tanh where theirs has ReLU, which is smooth, so that the solver keeps
its order, and bounded, so that paths do not explode; one vector for each block is added to the residual stream, not
one each to queries, keys and values; every pass solves the equation (theirs every 400 steps), by fourth-order
Runge-Kutta at knots, in float64, with cubic Hermite interpolation between them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/floater")
class Floater(PositionScheme):
    """x + p(t) before block n, with dp/dt = h(t, p), p(0) = start_n, t = step * position, h = tanh([p, t] A + a) B + b."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))
    decayed_parameters = ("into_VW", "out_WW")

    def __init__(self, shape: ModelShape, step: float | None = None, knots: int = 32) -> None:
        super().__init__()
        self.step = 2.55 / shape.train_len if step is None else step
        if not 0 < self.step < math.inf or knots < 1:
            raise ConfigError(
                f"floater step {step}, knots {knots}: give a time above 0 from token to token, or null for 2.55 / "
                "train_len, and at least 1 knot over the training length"
            )
        self.knot_spacing = max(1, shape.train_len // knots)  # tokens
        self.start_LW = nn.Parameter(torch.randn(shape.n_layers, shape.d_model))
        into, out = (torch.randn(n, shape.d_model) * n**-0.5 for n in (shape.d_model + 1, shape.d_model))
        self.into_VW, self.out_WW = nn.Parameter(into), nn.Parameter(out)
        self.into_W, self.out_W = (nn.Parameter(torch.zeros(shape.d_model)) for _ in ("into", "out"))
        self._unread: tuple[Geometry | None, dict[int, Tensor]] = (None, {})

    def embed(self, x_BTW: Tensor, geo: Geometry, layer: int) -> Tensor:
        # One solution serves all blocks of a pass. Each block removes its part, so that no tensor outlives the pass
        # and its gradient.
        if self._unread[0] is not geo or layer not in self._unread[1]:
            self._unread = geo, dict(enumerate(self.path(geo).unbind(1)))
        return x_BTW + self._unread[1].pop(layer).to(x_BTW.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unread": (None, {})}

    def path(self, geo: Geometry) -> Tensor:
        """Returns each block's vectors at the queries' positions, (T, L, W) float64."""
        if self.start_LW.is_meta:  # the solver needs values
            return self.start_LW.new_empty(len(geo.q_pos_T), *self.start_LW.shape)
        time_K, knot_T, fraction_T = geo.memo((self, "grid"), lambda: self.grid(geo.q_pos_T))
        h = self.dynamics()
        p_KLW = odeint(h, self.start_LW.double(), time_K, method="rk4")
        rise_KLW = h(time_K[:, None, None], p_KLW) * (self.knot_spacing * self.step)
        w = fraction_T[:, None, None]
        left = p_KLW[knot_T] * (1 + 2 * w) + rise_KLW[knot_T] * w
        right = p_KLW[knot_T + 1] * (3 - 2 * w) - rise_KLW[knot_T + 1] * (1 - w)
        return left * (1 - w) ** 2 + right * w**2

    def grid(self, pos_T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the times of the knots (K,), the knot before each position, and its fraction of the way to the next (T,)."""
        distance_T = pos_T.double() / self.knot_spacing
        knot_T = distance_T.long()
        time_K = torch.arange(int(knot_T.max()) + 2, device=pos_T.device) * (self.knot_spacing * self.step)
        return time_K.double(), knot_T, distance_T - knot_T

    def dynamics(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns h(t, p) in float64, for p (..., W) and t that broadcasts to (..., 1)."""
        of_p, of_t = self.into_VW[:-1].double(), self.into_VW[-1].double()
        into, out_WW, out = self.into_W.double(), self.out_WW.double(), self.out_W.double()
        return lambda t, p: torch.tanh(p @ of_p + t * of_t + into) @ out_WW + out
