"""Linear recurrences in place of attention: a state (D, E) that decays, computed in chunks of tokens.

Yang et al. Gated Delta Networks. ICLR 2025. arXiv:2412.06464, for the chunks of the delta rule; Dao, Gu.
Transformers are SSMs. ICML 2024. arXiv:2405.21060, for those of a decay alone. Memory is linear in the
length. There are no logits that an extension could mask, split or scale.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.position.causal_convolution import causal_convolution
from posbench.position.numerics import lower_triangle, upcast
from posbench.position.scheme import AttentionInputs, ModelShape, Traits
from posbench.position.state_scheme import StateScheme

TAPS = 4  # tokens of a convolution
# Tokens; the smaller one where each channel has a decay, so that pairs may need a number for each channel.
CHUNK, SMALL_CHUNK = 64, 16
EPSILON = 1e-5  # of norms of heads
# Nats in a chunk; a product of two factors of e^40 and two numbers is finite in float32.
MAX_DECAY = 80.0
# Nats; a smaller factor changes no sum, and exp takes 18 times as long where it underflows.
MIN_EXPONENT = -60.0


class Recurrence(StateScheme):
    """Convolves queries, keys and values over the last TAPS tokens, and applies SiLU; subclasses have the state.

    A cache holds keys and values before the convolution but no queries. Over a cache, the convolution therefore reads
    zeros in place of earlier queries, and `shared_prefill` is False.

    Args:
        min_head_dim: see `StateScheme`.
        bias: whether the convolution has a bias. It starts at 0; in the code of Mamba-2, uniform within 1/2.
    """

    traits = Traits(relative=True, shared_prefill=False, softmax_attention=False, reads_hidden_states=True)
    version = 3  # 3: heads are merged by default

    def __init__(self, shape: ModelShape, min_head_dim: int = 48, bias: bool = False) -> None:
        super().__init__(shape, min_head_dim)
        channels = 3 * shape.n_heads * shape.head_dim
        self.conv_LCN = nn.Parameter((2 * torch.rand(shape.n_layers, channels, TAPS) - 1) * TAPS**-0.5)
        self.conv_bias_LC = nn.Parameter(torch.zeros(shape.n_layers, channels)) if bias else None

    def gate(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        """Returns the gated (B, H, T, D) output before the output projection, with merged heads."""
        raise NotImplementedError

    def attention_output(self, out_BHTD: Tensor, x_BTW: Tensor, layer: int) -> Tensor:
        return self.split(self.gate(self.merge(out_BHTD), x_BTW, layer))

    def convolve(self, inputs: AttentionInputs, v_BHSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, (B, H, S, D) each; values of another size, as probes have, stay as they are."""
        q_BHSD = F.pad(inputs.q_BHTD, (0, 0, v_BHSD.shape[2] - inputs.q_BHTD.shape[2], 0))
        parts = [q_BHSD, inputs.k_BHSD, *([v_BHSD] if v_BHSD.shape[-1] == q_BHSD.shape[-1] else [])]
        x_BGSD = upcast(torch.cat(parts, 1))  # G heads of all parts
        mixed_BGSD = causal_convolution(x_BGSD, self.conv_LCN[inputs.layer])
        if self.conv_bias_LC is not None:
            bias_GD = self.conv_bias_LC[inputs.layer].unflatten(0, (-1, x_BGSD.shape[-1]))
            mixed_BGSD = mixed_BGSD + bias_GD[: x_BGSD.shape[1], None].to(x_BGSD.dtype)
        q, k, *v = F.silu(mixed_BGSD).chunk(len(parts), 1)
        return q, k, v[0] if v else upcast(v_BHSD)


def initial_rates(low: float, high: float, *size: int) -> Tensor:
    """Returns log A for rates A drawn uniformly."""
    return torch.empty(size).uniform_(low, high).log()


def initial_step_biases(*size: int) -> Tensor:
    """Returns biases whose softplus is drawn log-uniformly between 0.001 and 0.1."""
    step = torch.empty(size).uniform_(math.log(0.001), math.log(0.1)).exp().clamp(min=1e-4)
    return step + torch.log(-torch.expm1(-step))


def normalize(x_BHTD: Tensor) -> Tensor:
    """Returns vectors of length 1."""
    return x_BHTD * torch.rsqrt(x_BHTD.square().sum(-1, keepdim=True) + 1e-6)


def rms_norm(x_BHTD: Tensor, weight_D: Tensor) -> Tensor:
    """Returns the RMSNorm of every head."""
    return F.rms_norm(x_BHTD, x_BHTD.shape[-1:], weight_D.to(x_BHTD.dtype), EPSILON)


def recur(
    q_BHSD: Tensor, k_BHSD: Tensor, v_BHSE: Tensor, log_decay_BHSD: Tensor, beta_BHS: Tensor | None = None
) -> Tensor:
    """Returns o_i = S_i^T q_i, (B, H, S, E), of a state S (D, E) that is 0 before the first token.

    S_i = A_i S_(i-1) + k_i v_i^T, or with beta the delta rule
    S_i = (I - beta_i k_i k_i^T) A_i S_(i-1) + beta_i k_i v_i^T; A_i = diag(exp(log_decay_i)).

    Args:
        log_decay_BHSD: at most 0; (B, H, S, 1) where all channels decay equally.
    """
    tokens, size = q_BHSD.shape[2], CHUNK if log_decay_BHSD.shape[-1] == 1 else SMALL_CHUNK
    beta_BHSD = None if beta_BHS is None else beta_BHS[..., None]
    parts = (q_BHSD, k_BHSD, v_BHSE, log_decay_BHSD, *([] if beta_BHSD is None else [beta_BHSD]))
    q, k, v, decay, *rest = (split_chunks(part, size) for part in parts)
    total = decay.cumsum(3)  # from the start of the chunk, the token's own decay included
    ends = total[:, :, :, -1:]
    since_start, carried_k = decay_factor(total), k * decay_factor(ends - total)
    read_q, (within, *among_keys) = q * since_start, pair_products([q, k] if rest else [q], k, total)
    if rest:
        beta = rest[0]
        v, written_k = torch.linalg.solve_triangular(
            beta * among_keys[0],  # read below the diagonal alone
            beta * torch.cat((v, k * since_start), -1),
            upper=False,
            unitriangular=True,
        ).split((v.shape[-1], k.shape[-1]), -1)
    # unbind, whose gradient is one stack; that of an index is a tensor of zeros for each chunk.
    read_N, within_N, carried_N, new_N = (x.unbind(2) for x in (read_q, within, carried_k, v))
    written_N, kept_N = written_k.unbind(2) if rest else (), decay_factor(ends).mT.unbind(2)
    state, outs = None, []
    for chunk in range(len(new_N)):
        new = new_N[chunk]
        if state is not None and rest:
            new = new - written_N[chunk] @ state
        out, added = within_N[chunk] @ new, carried_N[chunk].mT @ new
        if state is None:
            state = added
        else:
            out = out + read_N[chunk] @ state
            state = kept_N[chunk] * state + added
        outs.append(out)
    return torch.cat(outs, 2)[:, :, :tokens]


def split_chunks(x_BHSD: Tensor, size: int) -> Tensor:
    """Splits the tokens into chunks, (B, H, N, C, D); the last one is padded with zeros."""
    return F.pad(x_BHSD, (0, 0, 0, -x_BHSD.shape[2] % size)).unflatten(2, (-1, size))


def pair_products(parts: list[Tensor], keys: Tensor, total: Tensor) -> list[Tensor]:
    """Returns for each part a: sum_d a_id keys_jd exp(total_id - total_jd), (B, H, N, C, C), for j <= i, and 0 elsewhere."""
    if total.shape[-1] > 1 and factors_are_finite(total):
        middle = total[..., -1:, :] / 2
        keys = keys * (middle - total).exp()
        return [lower_triangle(a * (total - middle).exp() @ keys.mT) for a in parts]
    # Differences first: exp(-total) alone would overflow where the decay is strong.
    decay = decay_factor(total[..., :, None, :] - total[..., None, :, :])
    if decay.shape[-1] == 1:
        decay = lower_triangle(decay[..., 0])
        return [a @ keys.mT * decay for a in parts]
    products = torch.stack(parts, -2) @ (decay * keys[..., None, :, :]).mT
    return [lower_triangle(product) for product in products.unbind(-2)]


def factors_are_finite(total: Tensor) -> bool:
    """Returns whether factors of rows times factors of keys can replace those of pairs; on a GPU the test would wait."""
    plain = total.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and total.numel() > 0 and total.amin().item() >= -MAX_DECAY


def decay_factor(exponent: Tensor) -> Tensor:
    """Returns exp of exponents of at most 0; of greater ones, which belong to pairs that are left out, a finite number."""
    return F.hardtanh(exponent, MIN_EXPONENT, 1.0).exp()  # clamp, with a faster backward pass
