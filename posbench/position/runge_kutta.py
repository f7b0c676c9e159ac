"""Solution of the differential equation of floater: Runge-Kutta of fourth order (the 3/8 rule) at equidistant knots."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class RungeKutta(torch.autograd.Function):
    """States and rates h(t, p) at equidistant knots, (K, L, W) each, with the gradient of the solver's own steps.

    Autograd would record ten operations for each of four evaluations of h in a step, which take longer than the rest of
    a small model's training step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        into: Tensor,
        into_bias: Tensor,
        out: Tensor,
        out_bias: Tensor,
        step: float,
        knots: int,
    ) -> tuple[Tensor, Tensor]:
        count = 4 * knots - 3  # evaluations of h; the last one is the rate at the last knot
        thirds = 3 * torch.arange(knots, device=start.device, dtype=start.dtype)[:, None] + torch.arange(
            4, device=start.device
        )
        time = thirds.flatten()[:count] * (step / 3)
        offset = torch.outer(time, into[-1]) + into_bias
        inner, state, hidden = (
            into[:-1],
            start.new_empty(knots, *start.shape),
            start.new_empty(count, *start.shape),
        )
        read, rate = torch.empty_like(hidden), torch.empty_like(hidden)
        state[0] = start
        for n in range(count):
            knot, stage = divmod(n, 4)
            p, (k1, k2, k3, _) = state[knot], _stages(rate, knot)
            if stage == 0:
                read[n] = p
            elif stage == 1:
                torch.add(p, k1, alpha=step / 3, out=read[n])
            elif stage == 2:
                torch.add(p, k2, alpha=step, out=read[n]).sub_(k1, alpha=step / 3)
            else:
                torch.add(p, k1, alpha=step, out=read[n]).sub_(k2, alpha=step).add_(k3, alpha=step)
            torch.addmm(offset[n], read[n], inner, out=hidden[n]).tanh_()
            torch.addmm(out_bias, hidden[n], out, out=rate[n])
            if stage == 3:
                torch.add(p, rate[n - 3], alpha=step / 8, out=state[knot + 1])
                state[knot + 1].add_(k2, alpha=3 * step / 8).add_(k3, alpha=3 * step / 8).add_(
                    rate[n], alpha=step / 8
                )
        ctx.save_for_backward(inner, out, time, read, hidden)
        ctx.step = step
        return state, rate[::4].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_state: Tensor, d_rate: Tensor) -> tuple[Tensor | None, ...]:
        inner, out, time, read, hidden = ctx.saved_tensors
        step, d_out_of_h, d_inner = ctx.step, torch.empty_like(hidden), torch.empty_like(hidden)

        def through(n: int, gradient: Tensor) -> Tensor:
            """Returns the gradient of what evaluation n has read, from that of its value."""
            d_out_of_h[n] = gradient
            torch.mm(gradient, out.T, out=d_inner[n])
            torch.ops.aten.tanh_backward.grad_input(d_inner[n], hidden[n], grad_input=d_inner[n])
            return d_inner[n] @ inner.T

        last = len(d_state) - 1
        total = d_state[last] + through(4 * last, d_rate[last])
        for knot in reversed(range(last)):
            n = 4 * knot
            d1 = torch.add(d_rate[knot], total, alpha=step / 8)
            d2 = total * (3 * step / 8)
            d4 = through(n + 3, total * (step / 8))
            d3 = through(n + 2, torch.add(d2, d4, alpha=step))
            d2 = through(n + 1, d2.sub_(d4, alpha=step).add_(d3, alpha=step))
            d1.add_(d4, alpha=step).sub_(d3, alpha=step / 3).add_(d2, alpha=step / 3)
            total = through(n, d1).add_(total).add_(d2).add_(d3).add_(d4).add_(d_state[knot])
        rows, d_rows, s_rows, o_rows = (x.flatten(0, 1) for x in (read, d_inner, hidden, d_out_of_h))
        d_offset = d_inner.sum(1)
        d_into = torch.cat((rows.T @ d_rows, (time @ d_offset)[None]))
        return total, d_into, d_offset.sum(0), s_rows.T @ o_rows, o_rows.sum(0), None, None


def _stages(rate: Tensor, knot: int) -> tuple[Tensor, ...]:
    """Returns the four evaluations of h in the step from a knot."""
    return tuple(rate[min(4 * knot + stage, len(rate) - 1)] for stage in range(4))
