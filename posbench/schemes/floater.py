"""FLOATER: positions as the path of a learned differential equation, added before every block.

Liu, Yu, Dhillon, Hsieh. Learning to Encode Position for Transformer with Continuous Dynamical Model. ICML
2020, section 3. arXiv:2003.09229. The blocks share the dynamics and have a start each; past the training length
the path continues. Time runs as in the authors' code (xuanqing94/FLOATER), 2.55 over the training length, and is an
input of h besides the state. Deviations: h has tanh where theirs has ReLU, which is smooth, so that the solver keeps
its order, and bounded, so that paths do not explode; time enters the first layer of h, not both; starts are
drawn at standard deviation 1, theirs by Xavier's rule; one vector for each block is added to the residual stream, not
one each to queries, keys and values; every pass solves the equation (theirs every 400 steps), by fourth-order
Runge-Kutta at knots (the 3/8 rule), in float64, with cubic Hermite interpolation between them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Geometry
from posbench.position.runge_kutta import RungeKutta
from posbench.position.scheme import ModelShape, PositionScheme, Traits


@register("scheme/floater")
class Floater(PositionScheme):
    """x + p(t) before block n, with dp/dt = h(t, p), p(0) = start_n, t = step * position, h = tanh([p, t] A + a) B + b."""

    traits = Traits(relative=False, capabilities=frozenset({"positions"}))
    decayed_parameters = ("into_VW", "out_WW")

    def __init__(self, shape: ModelShape, step: float | None = None, knots: int = 32) -> None:
        super().__init__()
        self.step = 2.55 / shape.train_len if step is None else step
        if not 0 < self.step <= 100 or knots < 1:
            raise ConfigError(
                f"floater step {step}, knots {knots}: give a time above 0 and at most 100 from token to token, or null "
                "for 2.55 / train_len, and at least 1 knot over the training length"
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
        spacing = self.knot_spacing * self.step
        index_TJ, weight_TJ, knots = geo.memo((self, "grid"), lambda: self.grid(geo.q_pos_T, spacing))
        parameters = (self.start_LW, self.into_VW, self.into_W, self.out_WW, self.out_W)
        state_KLW, rate_KLW = RungeKutta.apply(*(one.double() for one in parameters), spacing, knots)
        table_KF = torch.cat((state_KLW, rate_KLW)).flatten(1)
        path_TF = F.embedding_bag(index_TJ, table_KF, mode="sum", per_sample_weights=weight_TJ)
        return path_TF.unflatten(1, self.start_LW.shape)

    def grid(self, pos_T: Tensor, spacing: float) -> tuple[Tensor, Tensor, int]:
        """Returns the interpolation: rows of states and rates (T, 4), their weights (T, 4), and the number of knots."""
        distance_T = pos_T.double() / self.knot_spacing
        knot_T = distance_T.long()
        w, knots = distance_T - knot_T, int(knot_T.max()) + 2
        start = (1 - w) ** 2 * (1 + 2 * w), (1 - w) ** 2 * w * spacing
        stop = w**2 * (3 - 2 * w), w**2 * (w - 1) * spacing
        rows = knot_T, knots + knot_T, knot_T + 1, knots + knot_T + 1
        return torch.stack(rows, 1), torch.stack((*start, *stop), 1), knots
