"""Where a model looks: the attention weights of the last token read, whatever its scheme does to them.

A scheme around the scheme asks for the weights and then lets attention go on as it is. They come from the
specification (`kernels.dense`) through the same `attend` that every scheme goes through, in place of the sums
that they make of the values: regions, masks, gains, terms of whole rows and denominators are all in them. What
a scheme adds to the values by pair is no weight and is left out. A denominator is a function of the
log-sum-exp alone, so that it may be asked for some rows.
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
    """A scheme whose weights of the last query are kept, layer by layer; nothing else changes.

    Raises:
        UndefinedError: if the scheme replaces attention by something that has no weights.
    """

    def __init__(self, inner: PositionScheme) -> None:
        nn.Module.__init__(self)  # no length is evaluated and no capability asked for
        # All keys of a row stand in one call.
        self.inner, self.traits = inner, replace(inner.traits, pairwise=False)
        self.weights_LBHS: list[Tensor] = []

    def attention(self, inputs: AttentionInputs, v_BHSD: Tensor, kernel: Kernel) -> None:
        if not self.traits.softmax_attention or self.inner.attention(inputs, v_BHSD, kernel) is not None:
            raise UndefinedError(
                "the scheme replaces attention by something without weights: leave it out of the task attention"
            )
        self.weights_LBHS.append(attend(self.inner, inputs, v_BHSD, last_weights)[:, :, 0])


def last_weights(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """(B, H, 1, S) weights of the last query and their log-sum-exp: a kernel for `attend`."""
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
    """(N, L, H, S) float64 weights of the last token of each row of ids, by layer and head.

    Args:
        kernel: what computes the model; the weights are the specification's.
        ids_NT: ids, which continue the cache where there is one.
        length: declared length of the sequences in tokens.
        batch: how many rows are read at once.
    """
    parts = []
    for some_BT in ids_NT.split(batch):
        observed = AttentionWeightRecorder(model.scheme)
        model.with_scheme(observed)(some_BT, kernel=kernel, cache=cache, length=length)
        parts.append(torch.stack(observed.weights_LBHS, 1).double().cpu())
    return torch.cat(parts)
