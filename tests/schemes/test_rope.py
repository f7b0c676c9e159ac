"""RoPE against a printed table, GPT-J (interleaved) and Llama (half-split). Tolerance 1e-5: they rotate in float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from calls import SHAPE, assert_same_gradients, attention_inputs
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama

from posbench.errors import ConfigError
from posbench.position.geometry import Geometry
from posbench.position.rotary import compute_inv_freq, rotate
from posbench.position.scheme import AttentionInputs, ModelShape
from posbench.schemes.rope import RoPE

# Query position, key position, q . k, and with q and k exchanged, of RandomState(42).
PRINTED = [
    (0, 0, -4.081900, -4.081900),
    (4, 4, -4.081900, -4.081900),
    (10, 0, -2.769302, -3.336345),
    (15, 5, -2.769302, -3.336345),
    (18, 8, -2.769302, -3.336345),
    (6, 16, -3.336345, -2.769302),
    (16, 26, -3.336345, -2.769302),
    (3, 13, -3.336345, -2.769302),
]


def rotated(scheme: RoPE, x_TD: Tensor, positions: list[int]) -> Tensor:
    """Returns the rotated vectors (T, D) at positions."""
    pos = torch.tensor(positions)
    x = x_TD[None, None]
    return scheme.qk(AttentionInputs(0, Geometry(pos, pos, pos, pos, 100, None), x, x, x, x))[0][0, 0]


def golden() -> tuple[Tensor, Tensor]:
    draw = np.random.RandomState(42)
    return torch.from_numpy(draw.randn(8)), torch.from_numpy(draw.randn(8))


@pytest.mark.parametrize(("q_pos", "k_pos", "printed", "exchanged"), PRINTED)
def test_products_as_printed(q_pos: int, k_pos: int, printed: float, exchanged: float) -> None:
    q, k = golden()
    scheme = RoPE(SHAPE, interleaved=True)
    for first, second, expected in ((q, k, printed), (k, q, exchanged)):
        at_q, at_k = rotated(scheme, torch.stack((first, second)), [q_pos, k_pos])
        assert float(at_q @ at_k) == pytest.approx(expected, abs=5e-7)


def test_norm_as_printed() -> None:
    q, _ = golden()
    assert float(rotated(RoPE(SHAPE, interleaved=True), q[None], [3]).norm()) == pytest.approx(
        2.48947373, abs=5e-9
    )


def test_steps_as_printed() -> None:
    """The first three of four pairs at position 3, their angles, and the rotated pairs, to the digits printed."""
    q, _ = golden()
    pairs = torch.tensor([[0.497, -0.138], [0.648, 1.523], [-0.234, -0.234]], dtype=torch.float64)
    torch.testing.assert_close(q.view(-1, 2)[:3], pairs, rtol=0, atol=5e-4)
    angles = 3 * compute_inv_freq(8, 10000.0)
    assert angles[:3].tolist() == pytest.approx([3.0, 0.3, 0.03], abs=1e-12)
    assert len(angles) == 4
    after = torch.tensor([-0.472, 0.207, 0.169, 1.646, -0.227, -0.241], dtype=torch.float64)
    scheme = RoPE(SHAPE, interleaved=True)
    torch.testing.assert_close(rotated(scheme, q[None], [3])[0, :6], after, rtol=0, atol=5e-4)


def test_interleaved_equals_gptj() -> None:
    inputs = attention_inputs(40)
    table = gptj.create_sinusoidal_positions(40, SHAPE.head_dim).double()[None]
    sin, cos = table.chunk(2, -1)
    q, k = RoPE(SHAPE, interleaved=True).qk(inputs)
    for mine, x in ((q, inputs.q_BHTD), (k, inputs.k_BHSD)):
        theirs = gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin, cos).transpose(1, 2)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
        assert_same_gradients(mine, theirs, [x], 1e-5)


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_half_split_equals_llama(base: float) -> None:
    inputs = attention_inputs(40)
    config = LlamaConfig(
        hidden_size=SHAPE.d_model,
        num_attention_heads=SHAPE.n_heads,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    cos, sin = llama.LlamaRotaryEmbedding(config)(inputs.q_BHTD, torch.arange(40)[None])
    theirs = llama.apply_rotary_pos_emb(inputs.q_BHTD, inputs.k_BHSD, cos, sin)
    for mine, expected, x in zip(
        RoPE(SHAPE, base, interleaved=False).qk(inputs), theirs, (inputs.q_BHTD, inputs.k_BHSD), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
        assert_same_gradients(mine, expected, [x], 1e-5)


def test_layouts_differ_by_a_permutation_of_the_dimensions() -> None:
    inputs = attention_inputs()
    order = torch.arange(SHAPE.head_dim).view(-1, 2).T.flatten()  # evens, then odds
    permuted = replace(inputs, q_BHTD=inputs.q_BHTD[..., order], k_BHSD=inputs.k_BHSD[..., order])
    for inner, outer in zip(
        RoPE(SHAPE, interleaved=True).qk(inputs), RoPE(SHAPE, interleaved=False).qk(permuted), strict=True
    ):
        torch.testing.assert_close(inner[..., order], outer, rtol=0, atol=1e-14)


def test_far_positions_keep_their_angles() -> None:
    """At position 10^6 an angle in float32 has an error of hundredths of a radian."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for pos in (4097, 1_000_003):
        out = rotated(RoPE(ModelShape(1, 1, 2, 2, 16)), x, [pos])
        torch.testing.assert_close(out, torch.tensor([[np.cos(pos), np.sin(pos)]]), rtol=0, atol=1e-9)


def test_decay_is_an_envelope_and_not_monotonic() -> None:
    """Section 3.4.3: at D = 64 the envelope of the mean of cos(n theta) decreases, and the mean is negative at n = 725."""
    inv_freq_M = compute_inv_freq(64, 10000.0)
    mean_N = torch.cos(torch.arange(4096).double()[:, None] * inv_freq_M).mean(-1)
    assert mean_N[725] < 0
    assert (mean_N[1:] > mean_N[:-1]).any()
    assert mean_N[1000:].max() < mean_N[:10].min()


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="the head dimension is 9"):
        RoPE(ModelShape(2, 4, 9, 36, 16))
    for base in (1.0, 0.0, float("nan")):
        with pytest.raises(ConfigError, match="above 1"):
            RoPE(SHAPE, rope_theta=base)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sliced", [True, False])
def test_the_rotation_has_autograds_gradient(batch: int, sliced: bool) -> None:
    """The rotation is an autograd function with a fast path for slices of a projection; both equal autograd's."""
    heads, length, dims = 4, 7, 6
    projected = torch.randn(batch, length, 2 * heads * dims, dtype=torch.float64)
    x = projected[..., : heads * dims].unflatten(-1, (heads, dims)).transpose(1, 2)
    x = (x if sliced else x.contiguous()).detach().requires_grad_()
    angle = torch.outer(torch.arange(length), compute_inv_freq(dims, 100.0))
    turn = torch.polar(torch.ones_like(angle), angle)
    expected = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)
    found = rotate(x, angle.cos(), angle.sin(), interleaved=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    # Gradients come in any layout: one with strided dimensions was an error.
    probe = torch.randn(dims, length, heads, batch, dtype=torch.float64).permute(3, 2, 1, 0)
    one, other = (torch.autograd.grad((out * probe).sum(), x)[0] for out in (found, expected))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
