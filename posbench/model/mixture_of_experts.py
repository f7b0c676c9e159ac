"""Mixture of experts in the form of gpt-oss: SwiGLU with limits and an offset, experts chosen by a router.

OpenAI. gpt-oss-120b & gpt-oss-20b Model Card. 2025. arXiv:2508.10925. As in transformers' gpt_oss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posbench.model.architecture import Architecture


class MixtureOfExperts(nn.Module):
    """sum_e p_e down_e((up_e + 1) * gate_e * sigmoid(alpha gate_e)), p the softmax over the k largest router logits.

    Gates are at most `limit`, ups within +-`limit`; odd columns of `gate_up` are ups.
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        count, width, hidden = config.n_experts, config.d_model, config.intermediate_size
        self.experts_per_token, self.alpha, self.limit = (
            config.experts_per_token,
            config.swiglu_alpha,
            config.swiglu_limit,
        )
        self.router = nn.Linear(width, count)
        self.gate_up_EWI = nn.Parameter(torch.empty(count, width, 2 * hidden))
        self.gate_up_bias_EI = nn.Parameter(torch.empty(count, 2 * hidden))
        self.down_EIW = nn.Parameter(torch.empty(count, hidden, width))
        self.down_bias_EW = nn.Parameter(torch.empty(count, width))

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_NW = x_BTW.flatten(0, -2)
        logit_NK, chosen_NK = self.router(x_NW).topk(self.experts_per_token, -1)
        share_NK, out_NW = logit_NK.softmax(-1), torch.zeros_like(x_NW)
        for expert in chosen_NK.unique().tolist():
            token, rank = (chosen_NK == expert).nonzero(as_tuple=True)
            gate, up = (
                (x_NW[token] @ self.gate_up_EWI[expert] + self.gate_up_bias_EI[expert])
                .unflatten(-1, (-1, 2))
                .unbind(-1)
            )
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
            hidden = (up + 1) * gate * (gate * self.alpha).sigmoid()
            out = hidden @ self.down_EIW[expert] + self.down_bias_EW[expert]
            out_NW.index_add_(0, token, out * share_NK[token, rank, None])
        return out_NW.view_as(x_BTW)
