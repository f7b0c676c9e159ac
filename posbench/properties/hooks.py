"""Parts of the model that a scheme acts on, according to its hooks."""

from __future__ import annotations

import torch

from posbench.position.call import AttentionCall
from posbench.position.entmax import LogWeights
from posbench.position.scheme import AttentionInputs, PositionScheme
from posbench.properties.probe import SchemeProbe, draw

# In the order of the forward pass.
PARTS = (
    "embeddings",
    "positions",
    "q and k",
    "logit scale",
    "logits",
    "values",
    "mask",
    "softmax",
    "attention",
    "output",
)


def acts_on(probe: SchemeProbe) -> tuple[str, ...]:
    """Returns the parts of PARTS that the scheme changes, within twice the training length if it supports that."""
    scheme = probe.scheme
    length = probe.longest(probe.shape.train_len, 2 * probe.shape.train_len)
    x_BSW = draw(1, length, probe.shape.d_model, seed=0)
    geo = probe.geometry(length)
    changed = {"positions"} if probe.moves_positions() else set()
    for inputs in probe.attention_inputs(x_BSW, geo):
        if not torch.equal(scheme.embed(x_BSW, geo, inputs.layer), x_BSW):
            changed.add("embeddings")
        changed |= _attention_parts(probe, inputs)
        if not torch.equal(scheme.attention_output(inputs.q_BHTD, x_BSW, inputs.layer), inputs.q_BHTD):
            changed.add("output")
    return tuple(part for part in PARTS if part in changed)


def _attention_parts(probe: SchemeProbe, inputs: AttentionInputs) -> set[str]:
    scheme, changed = probe.scheme, set()
    if replaces_attention(scheme, inputs):
        return {"attention"}
    q, k = scheme.qk(inputs)
    if q.shape != inputs.q_BHTD.shape or not (
        torch.equal(q, inputs.q_BHTD) and torch.equal(k, inputs.k_BHSD)
    ):
        changed.add("q and k")
    bias = scheme.attention_bias(inputs)
    if isinstance(bias, LogWeights):
        changed.add("softmax")
        bias = bias.inner
    if bias is not None:
        changed.add("logits")
    hooks = {
        "logit_scale": "logit scale",
        "relative_values": "values",
        "mask": "mask",
        "softmax_normalizer": "softmax",
    }
    return changed | {part for hook, part in hooks.items() if getattr(scheme, hook)(inputs) is not None}


def replaces_attention(scheme: PositionScheme, inputs: AttentionInputs) -> bool:
    """Returns whether the scheme has an attention of its own in this layer."""
    return scheme.attention(inputs, torch.zeros_like(inputs.k_BHSD), _zeros) is not None


def _zeros(call: AttentionCall) -> tuple[torch.Tensor, None]:
    """Stands in for a kernel where only whether attention is replaced matters."""
    return torch.zeros_like(call.v_BHSD[:, :, : call.q_BHTE.shape[2]]), None
