"""Order sensitivity: f(Px) = Pf(x) holds without mask and scheme, and a scheme breaks it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size
from posbench.position.attention import attend
from posbench.position.call import AttentionCall
from posbench.position.scheme import PositionScheme
from posbench.properties.probe import SHAPE, SchemeProbe, draw

VOCABULARY = 50


@torch.no_grad()
def permutation_control() -> dict[str, float]:
    """Returns the largest |f(Px) - Pf(x)| of a two-layer model without a scheme, without and with the causal mask."""
    size = Size(SHAPE.n_layers, SHAPE.d_model, SHAPE.n_heads)
    model = GPT(size, VOCABULARY, PositionScheme(), seed=0).double()
    ids = torch.randint(VOCABULARY, (2, SHAPE.train_len), generator=torch.Generator().manual_seed(1))
    order = torch.randperm(SHAPE.train_len, generator=torch.Generator().manual_seed(2))

    def difference(kernel: object) -> float:
        permuted, straight = (model(each, kernel=kernel)[0] for each in (ids[:, order], ids))
        return float((permuted - straight[:, order]).abs().max())

    return {"unmasked": difference(unmasked), "causal": difference(KernelDispatcher("dense"))}


def unmasked(call: AttentionCall) -> tuple[Tensor, None]:
    """Attention kernel without a mask."""
    weight = torch.softmax(call.scale * call.q_BHTE @ call.k_BHSE.transpose(-1, -2), -1)
    return weight @ call.v_BHSD, None


def order_sensitivity(probe: SchemeProbe) -> float:
    """Returns the largest change of the last token's output of a layer if the tokens before it are permuted.

    The causal mask hides no token from the last one, so the change is due to the scheme. It is relative to the root
    mean square of the outputs; the largest of all layers.
    """
    length = probe.shape.train_len
    x_BSW = draw(2, length, probe.shape.d_model, seed=4)
    order = torch.randperm(length - 1, generator=torch.Generator().manual_seed(5))
    permuted = torch.cat((x_BSW[:, order], x_BSW[:, -1:]), 1)
    worst = 0.0
    for straight, other in zip(_outputs(probe, x_BSW), _outputs(probe, permuted), strict=True):
        change = (straight - other).abs().max() / straight.square().mean().sqrt()
        worst = float(np.maximum(worst, float(change)))  # keeps NaN
    return worst


def _outputs(probe: SchemeProbe, x_BSW: Tensor) -> list[Tensor]:
    """(B, H, D) outputs of the last token, by layer."""
    scheme, outputs = probe.scheme, []
    for inputs in probe.attention_inputs(x_BSW, probe.geometry(x_BSW.shape[1])):
        # Values contain no positions, which would change the output even with equal attention.
        v = x_BSW.unflatten(-1, (probe.shape.n_heads, -1)).transpose(1, 2)
        own = scheme.attention(inputs, v, KernelDispatcher("dense"))
        outputs.append(
            (attend(scheme, inputs, v, KernelDispatcher("dense")) if own is None else own)[:, :, -1]
        )
    return outputs
