"""A model of transformers as it is: its own forward pass, its own cache, its own greedy decoding."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posbench.errors import DataError, IncompatibleError, LengthError
from posbench.instantiate import register
from posbench.lm import hf_positions
from posbench.lm.interface import AttentionWeights, Generated, Prompt, Scores
from posbench.position.scheme import ModelShape, PositionScheme, Traits

# Logits held at once: a gigabyte in float32.
LOGITS = 1 << 28


@register("scheme/opaque_positions")
class OpaquePositions(PositionScheme):
    """Stands in a plan for positions of which nothing is known but the longest text that they allow.

    Args:
        max_position_embeddings: tokens; 0 where there is none.
    """

    traits = Traits(
        relative=False,
        prefix_stable=False,
        shared_prefill=False,
        lse_mergeable=False,
        softmax_attention=False,
        unbounded_context=False,
    )

    def __init__(self, shape: ModelShape, max_position_embeddings: int = 0) -> None:
        super().__init__()
        self.max_position_embeddings = max_position_embeddings

    def check(self, length: int) -> None:
        if self.max_position_embeddings and length > self.max_position_embeddings:
            raise LengthError(
                f"{length} tokens: this model has a table of {self.max_position_embeddings} positions (max_position_embeddings in its "
                f"config.json); choose lengths up to {self.max_position_embeddings}"
            )


class HFLM:
    """A causal language model of transformers, as a black box.

    A context with several questions is read once where its keys and values may be kept: not with a rotation that
    changes with the length (dynamic, longrope), whose kept keys would have turned by another base.

    Args:
        model: in evaluation mode, on its device.
        precision: autocast or nothing, entered around each pass.
        max_tokens_per_batch: prompts of one shape are read together up to this many tokens.

    Raises:
        DataError: if the model sees what follows a token, or if its own scaling is not in effect.
    """

    def __init__(
        self, model: Any, train_len: int, precision: AbstractContextManager, max_tokens_per_batch: int
    ) -> None:
        from transformers import GenerationConfig

        self.model, self.train_len = model, train_len
        self.precision, self.max_tokens_per_batch = precision, max_tokens_per_batch
        self.device = next(model.parameters()).device
        kind = hf_positions.rope_type(model.config)
        self.moving, self.changing = kind == "dynamic", kind in ("dynamic", "longrope")
        self.few = "logits_to_keep" in inspect.signature(model.forward).parameters
        # Of its own generation settings nothing may remain: no penalties, no sampling, no end before the last.
        model.generation_config = GenerationConfig(pad_token_id=0)
        check_causal(self)
        check_scaling(model)

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order."""
        for (context, shape, n_scored), alike in groupby(
            prompts, key=lambda p: (len(p.context), p.continuations.shape, p.n_scored)
        ):
            size = self.batch_size_for(n_scored, context + shape[1])
            waiting: list[Prompt] = []
            for prompt in alike:
                if shape[0] > 1:
                    yield self.shared(prompt, size) or self.apart(prompt, size)
                    continue
                waiting.append(prompt)
                if len(waiting) == size:
                    yield from self.together(waiting)
                    waiting = []
            if waiting:
                yield from self.together(waiting)

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Greedily generated ids after each prompt's continuations, in order; none ends before its last id."""
        for prompt in prompts:
            ids = whole(prompt)
            size = self.batch_size_for(1, prompt.length)
            parts = []
            for start in range(0, len(ids), size):
                ids_BT = torch.from_numpy(ids[start : start + size]).to(self.device)
                self.reset()
                with torch.inference_mode(), self.precision:
                    found = self.model.generate(
                        ids_BT,
                        attention_mask=torch.ones_like(ids_BT),
                        do_sample=False,
                        min_new_tokens=prompt.max_new_tokens,
                        max_new_tokens=prompt.max_new_tokens,
                        use_cache=not self.changing,
                    )
                parts.append(found[:, ids_BT.shape[1] :].cpu().numpy())
            yield Generated(np.concatenate(parts))

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Not to be had."""
        raise IncompatibleError(
            "attention weights of a black box: only models that can be converted have them; choose one of those, "
            "or another task"
        )

    def batch_size_for(self, n_scored: int, length: int) -> int:
        """How many sequences of `length` tokens with `n_scored` targets are read together."""
        logits = self.model.config.vocab_size * (n_scored if self.few else length)
        return max(1, min(self.max_tokens_per_batch // length, LOGITS // logits))

    def together(self, prompts: list[Prompt]) -> Iterator[Scores]:
        """One pass over prompts of one shape with one continuation each."""
        logprob_BAV = self.read(np.concatenate([whole(prompt) for prompt in prompts]), prompts[0].n_scored)
        for row, prompt in enumerate(prompts):
            yield scores(logprob_BAV[row : row + 1], prompt.continuations, prompt)

    def apart(self, prompt: Prompt, size: int) -> Scores:
        """Each question with a context of its own."""
        ids = whole(prompt)
        return joined(
            [
                scores(
                    self.read(ids[start : start + size], prompt.n_scored),
                    prompt.continuations[start : start + size],
                    prompt,
                )
                for start in range(0, len(ids), size)
            ]
        )

    def shared(self, prompt: Prompt, size: int) -> Scores | None:
        """One pass over the context, then the continuations over its keys and values; None where those cannot be kept."""
        from transformers import DynamicCache

        if self.changing or len(prompt.context) < 2:
            return None
        context = torch.from_numpy(prompt.context[None, :-1].astype(np.int64)).to(self.device)
        with torch.inference_mode(), self.precision:
            keep = {"logits_to_keep": 1} if self.few else {}
            cache = getattr(self.model(context, use_cache=True, **keep), "past_key_values", None)
        if type(cache) is not DynamicCache:
            return None
        # The last id of the context is read with the continuation, whose first id it may have to predict.
        ids = np.concatenate(
            [np.broadcast_to(prompt.context[-1:], (len(prompt.continuations), 1)), prompt.continuations],
            axis=1,
        ).astype(np.int64)
        parts = []
        for start in range(0, len(ids), size):
            some = ids[start : start + size]
            mine = copy.deepcopy(cache)  # reading appends to it
            mine.batch_repeat_interleave(len(some))
            parts.append(scores(self.read(some, prompt.n_scored, mine), some[:, 1:], prompt))
        return joined(parts)

    def read(self, ids: np.ndarray, n_scored: int, cache: Any = None) -> Tensor:
        """(B, A, V) float32 nats at the last `n_scored` of the ids, which may continue a cache."""
        ids_BT = torch.from_numpy(ids).to(self.device)
        keep = {"logits_to_keep": n_scored} if self.few else {}
        self.reset()
        with torch.inference_mode(), self.precision:
            out = self.model(ids_BT[:, :-1], past_key_values=cache, use_cache=cache is not None, **keep)
            return out.logits[:, -n_scored:].float().log_softmax(-1)

    def reset(self) -> None:
        """transformers' dynamic scaling remembers the longest text so far, until it reads a short one."""
        if self.moving:
            with torch.inference_mode():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=self.device), use_cache=False)


def whole(prompt: Prompt) -> np.ndarray:
    """(N, C + S) ids: each continuation behind the context."""
    context = np.broadcast_to(prompt.context, (len(prompt.continuations), len(prompt.context)))
    return np.concatenate([context, prompt.continuations], axis=1).astype(np.int64)


def scores(logprob_BAV: Tensor, continuations: np.ndarray, prompt: Prompt) -> Scores:
    """What a prompt asks for of the distributions at its answers."""
    target_BA = torch.from_numpy(continuations[:, -prompt.n_scored :].astype(np.int64)).to(logprob_BAV.device)
    logprob = logprob_BAV.gather(-1, target_BA[..., None])[..., 0].double().cpu().numpy()
    greedy_ids = logprob_BAV.argmax(-1).cpu().numpy()
    if prompt.candidate_ids is None:
        return Scores(logprob, greedy_ids)
    return Scores(logprob, greedy_ids, logprob_BAV[:, 0].double().cpu().numpy()[:, prompt.candidate_ids])


def joined(parts: list[Scores]) -> Scores:
    """The scores of several parts of one prompt's continuations."""
    candidates = [one.candidate_logprobs for one in parts if one.candidate_logprobs is not None]
    return Scores(
        np.concatenate([one.logprob for one in parts]),
        np.concatenate([one.greedy_ids for one in parts]),
        np.concatenate(candidates) if candidates else None,
    )


def check_causal(lm: HFLM) -> None:
    """Raise if what follows a token changes what is predicted before it, as in a masked language model."""
    ids = np.arange(2, 10)[None].repeat(2, 0) % lm.model.config.vocab_size
    ids[1, -2] = 0
    whole_BTV = lm.read(ids, ids.shape[1] - 1)
    if not torch.allclose(whole_BTV[0, :-1], whole_BTV[1, :-1], atol=1e-2):
        raise DataError(
            f"{lm.model.config.model_type} is no causal language model: what follows a token changes what is "
            "predicted before it; choose another model"
        )


def check_scaling(model: Any) -> None:
    """Raise unless every rotation of the model turns as its configuration says."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = hf_positions.rope_type(model.config)
    if kind == "default":
        return
    length = 2 * hf_positions.pretraining_len(model.config)
    device = next(model.parameters()).device
    inv_freq_M, amplitude = ROPE_INIT_FUNCTIONS[kind](model.config, device, seq_len=length)
    found = [module for module in model.modules() if hasattr(module, "inv_freq")]
    as_said = bool(found)
    for module in found:
        # Those that change with the length do it when they are asked.
        module(torch.zeros(1, 1, 1, device=device), torch.tensor([[length - 1]], device=device))
        turns_M, scaled = module.inv_freq.float(), getattr(module, "attention_scaling", 1.0)
        same = turns_M.shape == inv_freq_M.shape and torch.allclose(turns_M, inv_freq_M)
        as_said = as_said and same and abs(scaled - amplitude) < 1e-6
    if not as_said:
        raise DataError(
            f"rope type {kind!r} has no effect on {model.config.model_type}: its code turns otherwise than its "
            "config.json says; choose another model, or take rope_scaling out"
        )
