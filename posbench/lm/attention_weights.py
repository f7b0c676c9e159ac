"""Attention weights of the last token read, for any position scheme with softmax attention.

A wrapper around the scheme records the weights in each layer and leaves attention itself unchanged. The weights come
from the reference kernel (`kernels.dense`), called through `attend` like every kernel, so that regions, masks, logit
scales, row-wise biases and softmax normalizers apply to them. Values that a scheme adds by pair are not weights and
are left out. The last query suffices: a softmax normalizer is a function of each row's log-sum-exp alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from posbench.errors import UndefinedError
from posbench.kernels.dense import weights
from posbench.model.gpt import GPT, KVCache
from posbench.position.attention import attend
from posbench.position.call import AttentionCall, Kernel
from posbench.position.extension import Extension
from posbench.position.scheme import AttentionInputs, PositionScheme


class AttentionWeightRecorder(Extension):
    """Wrapper around a scheme that records the attention weights of the last query in each layer.

    Attributes:
        weights_LBHS: one (B, H, S) tensor for each layer, after a forward pass.

    Raises:
        UndefinedError: in the forward pass, if the scheme replaces softmax attention by a mechanism without weights.
    """

    def __init__(self, inner: PositionScheme) -> None:
        nn.Module.__init__(self)  # skips the checks of Extension, which need an evaluated length
        # Without `pairwise` the model passes all keys of a query to one call of `attention`.
        self.inner, self.traits = inner, replace(inner.traits, pairwise=False)
        self.weights_LBHS: list[Tensor] = []

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> None:
        if not self.traits.softmax_attention or self.inner.attention(inputs, v_BHSD, kernel) is not None:
            raise UndefinedError(
                "the scheme replaces softmax attention by a mechanism without weights; leave it out of the task "
                "attention"
            )
        self.weights_LBHS.append(attend(self.inner, inputs, v_BHSD, last_weights)[:, :, 0])


def last_weights(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Kernel for `attend`: (B, H, 1, S) weights of the last query in place of outputs, and their log-sum-exp."""
    queries = call.q_BHTE.shape[2]
    return weights(call, slice(queries - 1, queries))


def last_token_attention(
    model: GPT,
    kernel: Kernel,
    ids_NT: Tensor,
    *,
    cache: KVCache | None,
    length: int,
    batch: int,
) -> Tensor:
    """Computes (N, layers, heads, S) float64 attention weights of the last token of each row over all S tokens.

    Args:
        kernel: computes the forward pass; the weights are computed by the reference kernel.
        ids_NT: token ids, after those of the cache if there is one.
        length: declared length of the sequences in tokens.
        batch: number of rows in one forward pass.
    """
    parts = []
    for some_BT in ids_NT.split(batch):
        observed = AttentionWeightRecorder(model.scheme)
        model.with_scheme(observed)(some_BT, kernel=kernel, cache=cache, length=length)
        parts.append(torch.stack(observed.weights_LBHS, 1).double().cpu())
    return torch.cat(parts)
