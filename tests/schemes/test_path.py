"""PaTH against the product of its matrices, token by token, from the paper's equations. Tolerance 1e-10 in float64."""

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, values
from torch import Tensor

from posbench.position.scheme import AttentionInputs
from posbench.schemes import path
from posbench.schemes.path import PaTH


def recurrence(scheme: PaTH, at: AttentionInputs, v: Tensor) -> Tensor:
    """Every key is turned once by every token after it, as a cache would be while it decodes."""
    layer, tokens = at.layer, at.x_BSW.shape[1]
    low = torch.einsum("bsw,rw->bsr", at.x_BSW, scheme.down_LRW[layer])
    plain = torch.einsum("bsr,wr->bsw", low, scheme.up_LWR[layer])
    batches = []
    for b in range(2):
        heads = []
        for h in range(SHAPE.n_heads):
            mine = slice(h * SHAPE.head_dim, (h + 1) * SHAPE.head_dim)
            keys: list[Tensor] = []
            rows = []
            for i in range(tokens):
                mixed = sum(
                    scheme.tap_LWN[layer, mine, 2 - back] * plain[b, i - back, mine]
                    for back in range(min(i, 2) + 1)
                )
                w = mixed * torch.sigmoid(mixed)
                w = w / torch.sqrt((w * w).sum() + 1e-6)
                beta = 2 * torch.sigmoid(
                    scheme.beta_LHW[layer, h] @ at.x_BSW[b, i] + scheme.bias_LH[layer, h]
                )
                turn = torch.eye(SHAPE.head_dim, dtype=w.dtype) - beta * torch.outer(w, w)
                keys = [turn @ key for key in keys] + [at.k_BHSD[b, h, i]]
                logit = torch.stack([at.q_BHTD[b, h, i] @ key for key in keys]) / SHAPE.head_dim**0.5
                rows.append(logit.softmax(0) @ v[b, h, : i + 1])
            heads.append(torch.stack(rows))
        batches.append(torch.stack(heads))
    return torch.stack(batches)


@pytest.mark.parametrize("block", [64, 5, 1])
def test_attention_equals_the_product_of_reflections(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block, in blocks that do not divide the length, token by token."""
    monkeypatch.setattr(path, "BLOCK", block)
    torch.manual_seed(0)
    scheme = PaTH(SHAPE).double()
    with torch.no_grad():
        for parameter in scheme.parameters():  # larger than drawn, so that the paths matter
            parameter.normal_()
    at, v = attention_inputs(13, 1), values(13)
    expected, mine = recurrence(scheme, at, v), attention(scheme, at, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-10)
    assert_same_gradients(mine, expected, [*scheme.parameters(), at.q_BHTD, at.k_BHSD, v], 1e-9)
