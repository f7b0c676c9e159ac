"""Gated DeltaNet, KDA and Mamba-2 against the layers of transformers (2e-5, theirs run in float32) and token by token."""

from collections.abc import Callable

import pytest
import torch
from calls import SHAPE, assert_same_gradients
from torch import Tensor, nn
from transformers import KimiLinearConfig, Mamba2Config, Qwen3NextConfig
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.architecture import Architecture
from posbench.model.attention import Attention
from posbench.position.geometry import Geometry
from posbench.position.recurrence import Recurrence, recur
from posbench.schemes.gated_deltanet import GatedDeltaNet
from posbench.schemes.kda import KDA
from posbench.schemes.mamba2 import Mamba2

HEADS, DIM, WIDTH, LAYER = SHAPE.n_heads, SHAPE.head_dim, SHAPE.d_model, 1
TOKENS = 150  # more than two chunks of 64


def randomize(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_(1, 0.2)
            elif name.endswith("A_log"):
                parameter.uniform_(-2, 1)
            else:
                parameter.normal_(0, 0.3)


def qwen3_next() -> tuple[nn.Module, Recurrence, list[Tensor]]:
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=DIM,
        linear_value_head_dim=DIM,
        rms_norm_eps=1e-5,
        num_hidden_layers=2,
    )
    theirs = Qwen3NextGatedDeltaNet(config, LAYER)
    randomize(theirs)
    scheme = GatedDeltaNet(SHAPE, min_head_dim=1)
    q, k, v, gate = theirs.in_proj_qkvz.weight.unflatten(0, (HEADS, 4, DIM)).unbind(1)
    beta, decay = theirs.in_proj_ba.weight.unflatten(0, (HEADS, 2)).unbind(1)
    scheme.decay_LHW[LAYER], scheme.beta_LHW[LAYER] = decay, beta
    scheme.gate_LCW[LAYER], scheme.norm_LD[LAYER] = gate.flatten(0, 1), theirs.norm.weight
    scheme.conv_LCN[LAYER] = theirs.conv1d.weight[:, 0]
    scheme.rate_log_LH[LAYER], scheme.step_bias_LH[LAYER] = theirs.A_log, theirs.dt_bias
    return theirs, scheme, [q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), theirs.out_proj.weight]


def kimi_linear() -> tuple[nn.Module, Recurrence, list[Tensor]]:
    config = KimiLinearConfig(
        hidden_size=WIDTH,
        linear_num_heads=HEADS,
        linear_head_dim=DIM,
        rms_norm_eps=1e-5,
        num_hidden_layers=2,
        layer_types=["linear_attention", "linear_attention"],
    )
    theirs = KimiLinearDeltaAttention(config, LAYER)
    randomize(theirs)
    scheme, gate = KDA(SHAPE, min_head_dim=1), theirs.forget_gate
    scheme.decay_down_LDW[LAYER], scheme.decay_up_LCD[LAYER] = gate.f_a_proj.weight, gate.f_b_proj.weight
    scheme.gate_down_LDW[LAYER], scheme.gate_up_LCD[LAYER] = theirs.g_a_proj.weight, theirs.g_b_proj.weight
    scheme.beta_LHW[LAYER], scheme.norm_LD[LAYER] = theirs.b_proj.weight, theirs.o_norm.weight
    scheme.conv_LCN[LAYER] = theirs.conv1d.weight[:, 0]
    scheme.rate_log_LH[LAYER], scheme.step_bias_LC[LAYER] = gate.A_log.flatten(), gate.dt_bias
    projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.o_proj)
    return theirs, scheme, [projection.weight for projection in projections]


def mamba_2() -> tuple[nn.Module, Recurrence, list[Tensor]]:
    config = Mamba2Config(
        hidden_size=WIDTH,
        num_heads=HEADS,
        head_dim=DIM,
        state_size=DIM,
        n_groups=HEADS,
        expand=1,
        num_hidden_layers=2,
        chunk_size=32,
    )
    theirs = Mamba2Mixer(config, LAYER)
    randomize(theirs)
    scheme = Mamba2(SHAPE, min_head_dim=1)
    gate, v, k, q, step = theirs.in_proj.weight.split([WIDTH, WIDTH, WIDTH, WIDTH, HEADS])
    taps, biases = (
        x.unflatten(0, (3, WIDTH)).flip(0).flatten(0, 1)
        for x in (theirs.conv1d.weight[:, 0], theirs.conv1d.bias)
    )
    scheme.conv_LCN[LAYER], scheme.conv_bias_LC[LAYER] = taps, biases
    scheme.step_LHW[LAYER], scheme.gate_LCW[LAYER] = step, gate
    scheme.rate_log_LH[LAYER], scheme.step_bias_LH[LAYER] = theirs.A_log, theirs.dt_bias
    scheme.skip_LH[LAYER], scheme.norm_LC[LAYER] = theirs.D, theirs.norm.weight
    return theirs, scheme, [q, k, v, theirs.out_proj.weight]


@pytest.mark.parametrize("build", [qwen3_next, kimi_linear, mamba_2])
def test_a_layer_equals_transformers(build: Callable[[], tuple[nn.Module, Recurrence, list[Tensor]]]) -> None:
    """Channels of the convolution are queries, keys, values here and in the first two; Mamba-2 has x, B, C."""
    with torch.no_grad():
        theirs, scheme, (q, k, v, out) = build()
        mine = Attention(Architecture(2, WIDTH, HEADS, HEADS, DIM, WIDTH, qkv_bias=False), LAYER)
        mine.qkv.weight.copy_(torch.cat((q, k, v)))
        mine.out.weight.copy_(out)
    x_BTW = torch.randn(2, TOKENS, WIDTH, requires_grad=True)
    expected = theirs(x_BTW)
    expected = expected[0] if isinstance(expected, tuple) else expected
    found, _ = mine(x_BTW, scheme, Geometry.from_range(0, TOKENS), KernelDispatcher("auto"))
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=2e-5)
    (ours,), (other,) = (torch.autograd.grad(one.square().sum(), [x_BTW]) for one in (found, expected))
    torch.testing.assert_close(ours / other.abs().max(), other / other.abs().max(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("strongest", [3, 80])
def test_chunks_equal_the_recurrence_token_by_token(strongest: int, channels: int, delta: bool) -> None:
    """1e-12, with decays of which exp(-total) is finite within a chunk, and with some that would overflow."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, TOKENS, 5, generator=draw, dtype=torch.float64)
    k = k / k.norm(dim=-1, keepdim=True)
    log_decay = -strongest * torch.rand(2, 3, TOKENS, channels, generator=draw, dtype=torch.float64) ** 4
    beta = torch.rand(2, 3, TOKENS, generator=draw, dtype=torch.float64) if delta else None
    leaves = [x.requires_grad_() for x in (q, k, v, log_decay, *([] if beta is None else [beta]))]
    state, expected = torch.zeros(2, 3, 5, 5, dtype=torch.float64), []
    for i in range(TOKENS):
        state = log_decay[:, :, i].exp()[..., None] * state
        new = v[:, :, i]
        if beta is not None:
            new = beta[:, :, i, None] * (new - torch.einsum("bhd,bhde->bhe", k[:, :, i], state))
        state = state + k[:, :, i, :, None] * new[:, :, None]
        expected.append(torch.einsum("bhd,bhde->bhe", q[:, :, i], state))
    found = recur(q, k, v, log_decay, beta)
    torch.testing.assert_close(found, torch.stack(expected, 2), rtol=0, atol=1e-12)
    assert_same_gradients(found, torch.stack(expected, 2), leaves, 1e-10)
