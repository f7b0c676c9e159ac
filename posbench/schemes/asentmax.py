"""ASEntmax: sparse attention by 1.5-entmax, with a temperature that adapts to the query's token and to the length.

Vasylenko et al. Long-Context Generalization with Sparse Attention. ICLR 2026. arXiv:2506.16640. As in the
authors' code (github.com/deep-spin/asentmax): n counts from 2, gamma lies within 2 of 0, and only the heads without
positions are scaled, which are the last half of NAPE's. u and w have no bias, the default there; the commands of their
synthetic tasks add one. The weights of a row depend on all of its logits, so pairs cannot be split into regions and
rows run through `dense`, on a GPU too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posbench.errors import ConfigError, IncompatibleError
from posbench.instantiate import register
from posbench.position.biases import AttentionBias, QueryRows
from posbench.position.compose import Stack, refuse_full_rows
from posbench.position.entmax import LogEntmax15, LogWeights
from posbench.position.numerics import upcast
from posbench.position.scheme import AttentionInputs, ModelShape


@register("scheme/asentmax")
class ASEntmax(Stack):
    """weight = entmax15(t_ih q_i . k_j / sqrt(D) + b_ij), t_ih = 1 + softplus(u_h . x_i) (ln n)^(2 tanh(w_h . x_i)), n = i + 2.

    b is the bias of `base_scheme`; t is 1 for all heads but the last `num_scaled_heads`.
    """

    decayed_parameters = ("beta_LHW", "gamma_LHW")

    def __init__(
        self, shape: ModelShape, base_scheme: Mapping[str, Any], num_scaled_heads: int | None = None
    ) -> None:
        super().__init__(shape, [base_scheme])
        scaled = (shape.n_heads + 1) // 2 if num_scaled_heads is None else num_scaled_heads
        if not 1 <= scaled <= shape.n_heads:
            raise ConfigError(
                f"asentmax num_scaled_heads {scaled}: give 1 to {shape.n_heads}, the heads, or null for half of them"
            )
        self.unscaled = shape.n_heads - scaled
        self.traits = replace(self.traits, lse_mergeable=False, reads_hidden_states=True)
        size = (shape.n_layers, scaled, shape.d_model)
        self.beta_LHW, self.gamma_LHW = (nn.Parameter(0.02 * torch.randn(size)) for _ in ("beta", "gamma"))

    def logit_scale(self, inputs: AttentionInputs) -> Tensor:
        assert inputs.x_BTW is not None
        beta_BTH, gamma_BTH = (
            F.linear(inputs.x_BTW, weight[inputs.layer]) for weight in (self.beta_LHW, self.gamma_LHW)
        )
        log_n_T1 = (inputs.geo.q_index_T.double() + 2).log()[:, None]
        adaptive_BTH = F.softplus(upcast(beta_BTH)) * log_n_T1 ** (2 * upcast(gamma_BTH).tanh())
        own = 1 + F.pad(adaptive_BTH.transpose(1, 2), (0, 0, self.unscaled, 0))
        inner = super().logit_scale(inputs)
        return own if inner is None else own * inner

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        inner = super().attention_bias(inputs)
        refuse_full_rows(inner, self)
        if super().softmax_normalizer(inputs) is not None:
            base = type(self.members[0]).__name__
            raise IncompatibleError(
                f"ASEntmax around {base}: {base} replaces the denominator of the softmax, and so does ASEntmax; choose "
                "another base scheme"
            )

        def bias(rows: QueryRows) -> Tensor:
            content = rows.content_BHRS
            logits = content if inner is None else content + inner.value_from_rows(rows).to(content.dtype)
            return LogEntmax15.apply(logits.masked_fill(~rows.visible_RS, -torch.inf)) - content

        return LogWeights(bias, inputs.q_BHTD, inputs.k_BHSD, inner=inner)
