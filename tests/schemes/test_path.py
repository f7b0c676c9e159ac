"""PaTH against the product of the paper's matrices, token by token. Tolerance 1e-10 in float64."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch import Tensor

from posbench.position.scheme import AttentionInputs
from posbench.schemes import path
from posbench.schemes.path import PaTH


def recurrence(scheme: PaTH, inputs: AttentionInputs, v: Tensor) -> Tensor:
    """Every later token multiplies every key by its matrix, as in a cache during decoding."""
    layer, tokens = inputs.layer, inputs.x_BSW.shape[1]
    low = torch.einsum("bsw,rw->bsr", inputs.x_BSW, scheme.down_LRW[layer])
    projected = torch.einsum("bsr,wr->bsw", low, scheme.up_LWR[layer])
    batches = []
    for b in range(2):
        heads = []
        for h in range(SHAPE.n_heads):
            own = slice(h * SHAPE.head_dim, (h + 1) * SHAPE.head_dim)
            keys: list[Tensor] = []
            rows = []
            for i in range(tokens):
                convolved = sum(
                    scheme.tap_LWN[layer, own, 2 - back] * projected[b, i - back, own]
                    for back in range(min(i, 2) + 1)
                )
                w = convolved * torch.sigmoid(convolved)
                w = w / torch.sqrt((w * w).sum() + 1e-6)
                beta = 2 * torch.sigmoid(
                    scheme.beta_LHW[layer, h] @ inputs.x_BSW[b, i] + scheme.bias_LH[layer, h]
                )
                matrix = torch.eye(SHAPE.head_dim, dtype=w.dtype) - beta * torch.outer(w, w)
                keys = [matrix @ key for key in keys] + [inputs.k_BHSD[b, h, i]]
                logit = torch.stack([inputs.q_BHTD[b, h, i] @ key for key in keys]) / SHAPE.head_dim**0.5
                rows.append(logit.softmax(0) @ v[b, h, : i + 1])
            heads.append(torch.stack(rows))
        batches.append(torch.stack(heads))
    return torch.stack(batches)


@pytest.mark.parametrize("block", [64, 5, 1])
def test_attention_equals_the_product_of_reflections(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one block, with blocks that do not divide the length, and with one token a block."""
    monkeypatch.setattr(path, "BLOCK", block)
    torch.manual_seed(0)
    scheme = PaTH(SHAPE).double()
    with torch.no_grad():
        for parameter in scheme.parameters():  # larger than at initialization, so that the products matter
            parameter.normal_()
    inputs, v = attention_inputs(13, 1), values(13)
    expected, mine = recurrence(scheme, inputs, v), attention(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-10)
    assert_same_gradients(mine, expected, [*scheme.parameters(), inputs.q_BHTD, inputs.k_BHSD, v], 1e-9)
