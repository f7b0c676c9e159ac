"""CoPE against x-transformers, and against the paper's equations pair by pair. Tolerance 1e-12 in float64."""

import math

import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention, attention_inputs, causal, values
from torch import Tensor
from x_transformers.x_transformers import CoPE as TheirCoPE

from posbench.errors import ConfigError
from posbench.position.scheme import AttentionInputs
from posbench.schemes.cope import CoPE

TOKENS = 20


def cope(positions: int = 5) -> CoPE:
    torch.manual_seed(0)
    return CoPE(SHAPE, positions).double()


def x_transformers(scheme: CoPE, inputs: AttentionInputs, v: Tensor) -> Tensor:
    theirs = TheirCoPE(SHAPE.head_dim, SHAPE.n_heads, scheme.vector_LPD.shape[1]).double()
    del theirs.pos_emb
    theirs.pos_emb = scheme.vector_LPD[inputs.layer]  # type: ignore[assignment]
    content = inputs.q_BHTD @ inputs.k_BHSD.transpose(-1, -2) / math.sqrt(SHAPE.head_dim) + causal(TOKENS)
    return (content + theirs(inputs.q_BHTD, content)).softmax(-1) @ v


def equations(scheme: CoPE, inputs: AttentionInputs, v: Tensor) -> Tensor:
    """Equations 3 to 6: gates, positions, vectors interpolated between integer positions, attention."""
    vector_PD = scheme.vector_LPD[inputs.layer]
    rows = []
    for b in range(2):
        for h in range(SHAPE.n_heads):
            for i in range(TOKENS):
                q = inputs.q_BHTD[b, h, i]
                content = [q @ inputs.k_BHSD[b, h, j] / math.sqrt(SHAPE.head_dim) for j in range(i + 1)]
                logits = []
                for j in range(i + 1):
                    p = torch.stack([1 / (1 + torch.exp(-content[t])) for t in range(j, i + 1)]).sum()
                    p = torch.clamp(p, max=len(vector_PD) - 1)
                    low = min(int(p), len(vector_PD) - 2)
                    mixed = (p - low) * vector_PD[low + 1] + (1 - p + low) * vector_PD[low]
                    logits.append(content[j] + q @ mixed)
                rows.append(torch.stack(logits).softmax(0) @ v[b, h, : i + 1])
    return torch.stack(rows).view(2, SHAPE.n_heads, TOKENS, SHAPE.head_dim)


@pytest.mark.parametrize("reference", [x_transformers, equations])
@pytest.mark.parametrize("positions", [4, 64])
def test_attention_equals(reference, positions: int) -> None:  # type: ignore[no-untyped-def]
    """With more positions than are reached and with fewer."""
    scheme, inputs, v = cope(positions), attention_inputs(TOKENS, 1), values(TOKENS)
    mine, expected = attention(scheme, inputs, v), reference(scheme, inputs, v)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    assert_same_gradients(mine, expected, [scheme.vector_LPD, inputs.q_BHTD, inputs.k_BHSD, v], 1e-12)


def test_bad_settings() -> None:
    for positions in (1, 0, -3):
        with pytest.raises(ConfigError, match="at least 2"):
            CoPE(SHAPE, positions)
