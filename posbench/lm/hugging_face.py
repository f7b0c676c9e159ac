"""A transformers model as an LM, unchanged: its own forward pass, KV cache and generation."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posbench.errors import DataError, IncompatibleError, LengthError, UndefinedError, format_error
from posbench.instantiate import register
from posbench.lm import hf_positions
from posbench.lm.batching import run_batches, shape
from posbench.lm.generation import check_numbers
from posbench.lm.interface import AttentionWeights, Generated, Prompt, Scores
from posbench.position.scheme import ModelShape, PositionScheme, Traits
from posbench.runtime.oom import is_out_of_memory

# Largest number of logits in one forward pass of several sequences: 1 GiB in float32.
LOGITS = 1 << 28
# Largest number of logits that are normalized at once: 64 MiB in float32.
SOFTMAX_LOGITS = 1 << 24


@register("scheme/opaque_positions")
class OpaquePositions(PositionScheme):
    """Placeholder for the position scheme of an unconverted model; only its maximum length is known.

    Args:
        max_position_embeddings: rows of the model's table of positions, in tokens; 0 if it has no such table.
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
    """A causal language model of transformers as a black box.

    Continuations share a prefill of their context unless the rotation depends on the length read so far (rope types
    dynamic and longrope): keys cached at one length are rotated differently from keys at another.

    Args:
        model: in evaluation mode, on its device.
        train_len: training length in tokens.
        precision: makes the context of a forward pass, autocast or a null context, anew each time.
        max_tokens_per_batch: largest number of tokens in one forward pass; a single longer sequence is still read.

    Raises:
        DataError: if the model is not causal, or its rotation does not follow its configuration.
    """

    def __init__(
        self,
        model: Any,
        train_len: int,
        precision: Callable[[], AbstractContextManager],
        max_tokens_per_batch: int,
    ) -> None:
        from transformers import GenerationConfig

        self.model, self.train_len = model, train_len
        self.precision, self.max_tokens_per_batch = precision, max_tokens_per_batch
        self.device = next(model.parameters()).device
        rope_types = hf_positions.rope_types(model.config)
        self.remembers_length = "dynamic" in rope_types
        self.reuses_cache = not {"dynamic", "longrope"} & set(rope_types)
        self.limits_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        # Discards the model's own generation settings: no penalties, no sampling, no early stop.
        model.generation_config = GenerationConfig(pad_token_id=0)
        check_causal(self)
        check_scaling(model)

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Computes the log-probabilities of the scored ids of each prompt, in order."""

        def score(ids: np.ndarray, cache: Any, prompt: Prompt) -> tuple[Tensor, ...]:
            if cache is not None:
                cache = copy.deepcopy(cache)  # the forward pass appends to it
                cache.batch_repeat_interleave(len(ids))
            logits_BAV = self.next_token_logits(ids, prompt.n_scored, cache)
            scores = score_targets(logits_BAV, torch.from_numpy(ids[:, -prompt.n_scored :]).to(self.device))
            if prompt.candidate_ids is None:
                return scores
            candidate_ids = torch.from_numpy(prompt.candidate_ids.astype(np.int64)).to(self.device)
            return *scores, candidate_logprobs(logits_BAV[:, 0], candidate_ids)

        for _, (logprob_NA, greedy_NA, *candidates) in run_batches(
            prompts, score, batch_size=self.batch_size_for, prefill=self.prefill, key=shape_and_candidates
        ):
            yield Scores(logprob_NA.numpy(), greedy_NA.numpy(), candidates[0].numpy() if candidates else None)

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Generates ids greedily after each continuation of each prompt, in order."""

        def decode(ids: np.ndarray, _: None, prompt: Prompt) -> tuple[Tensor]:
            ids_BT = torch.from_numpy(ids).to(self.device)
            self.reset_rope()
            with self.running(ids.shape[1] + prompt.max_new_tokens - 1):
                generated = self.model.generate(
                    ids_BT,
                    attention_mask=torch.ones_like(ids_BT),
                    do_sample=False,
                    min_new_tokens=prompt.max_new_tokens,
                    max_new_tokens=prompt.max_new_tokens,
                    use_cache=self.reuses_cache,
                    logits_processor=[check_scores],
                )
            return (generated[:, ids_BT.shape[1] :].cpu(),)

        for _, (ids,) in run_batches(prompts, decode, batch_size=self.batch_size_for, prefill=lambda _: None):
            yield Generated(ids.numpy())

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Raises IncompatibleError."""
        raise IncompatibleError(
            "attention weights are not available for unconverted models; choose a model that can be converted, or "
            "another task"
        )

    def batch_size_for(self, prompt: Prompt) -> int:
        """Number of sequences of the prompt's length in one forward pass: limits its tokens and its logits."""
        length = prompt.length + 1
        logits = self.model.config.vocab_size * (max(1, prompt.n_scored) if self.limits_logits else length)
        return max(1, min(self.max_tokens_per_batch // length, LOGITS // logits))

    def prefill(self, prompt: Prompt) -> Any:
        """Caches all but the last id of a context; None if the model's cache cannot be reused."""
        from transformers import DynamicCache

        if not self.reuses_cache or len(prompt.context) < 2:
            return None
        ids = torch.from_numpy(prompt.context[None, :-1].astype(np.int64)).to(self.device)
        with self.running(prompt.length):
            keep = {"logits_to_keep": 1} if self.limits_logits else {}
            cache = getattr(self.model(ids, use_cache=True, **keep), "past_key_values", None)
        return cache if type(cache) is DynamicCache else None

    def next_token_logits(self, ids: np.ndarray, n_scored: int, cache: Any = None) -> Tensor:
        """Computes (B, n_scored, V) logits at the last ids of (B, T) int64 ids, which may follow a cache."""
        ids_BT = torch.from_numpy(ids).to(self.device)
        keep = {"logits_to_keep": n_scored} if self.limits_logits else {}
        self.reset_rope()
        with self.running(ids.shape[1] - 1 + (cache.get_seq_length() if cache is not None else 0)):
            past = {} if cache is None else {"past_key_values": cache}
            out = self.model(ids_BT[:, :-1], use_cache=cache is not None, **past, **keep)
            return out.logits[:, -n_scored:]

    @contextlib.contextmanager
    def running(self, length: int) -> Iterator[None]:
        """Context of a forward pass of transformers, whose errors past the training length become UndefinedError.

        Some implementations have tables that end there, such as the ALiBi biases of MPT.
        """
        try:
            with torch.inference_mode(), self.precision():
                yield
        except (IndexError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error) or length <= self.train_len:
                raise
            raise UndefinedError(
                f"{length} tokens: transformers' {self.model.config.model_type} fails ({format_error(error)}); choose "
                f"lengths up to {self.train_len}"
            ) from None

    def reset_rope(self) -> None:
        """Resets dynamic scaling, which keeps the frequencies of the longest text until it reads a short one."""
        if self.remembers_length:
            with torch.inference_mode():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=self.device), use_cache=False)


def check_scores(ids_BT: Tensor, scores_BV: Tensor) -> Tensor:
    """Returns the scores of a step of generation; see `check_numbers`."""
    check_numbers(scores_BV)
    return scores_BV


def shape_and_candidates(prompt: Prompt) -> tuple:
    """The properties that prompts of one batch have in common, the candidates included."""
    return shape(prompt), None if prompt.candidate_ids is None else prompt.candidate_ids.tobytes()


def score_targets(logits_BAV: Tensor, target_BA: Tensor) -> tuple[Tensor, Tensor]:
    """Computes (B, A) float64 nats of the targets and (B, A) greedy ids, both on the CPU.

    Beside the logits themselves, at most SOFTMAX_LOGITS numbers are in memory at a time.
    """
    rows = max(1, SOFTMAX_LOGITS // logits_BAV.shape[-1])
    logprob, greedy_ids = [], []
    for sequence_AV, target_A in zip(logits_BAV, target_BA, strict=True):
        for some_RV, target_R in zip(sequence_AV.split(rows), target_A.split(rows), strict=True):
            logprob.append(candidate_logprobs(some_RV, target_R[:, None])[:, 0])
            greedy_ids.append(some_RV.argmax(-1).cpu())
    return torch.cat(logprob).view(target_BA.shape), torch.cat(greedy_ids).view(target_BA.shape)


def candidate_logprobs(logits_RV: Tensor, ids: Tensor) -> Tensor:
    """Computes (R, M) float64 nats on the CPU of M ids, which are (M,) or (R, M), at (R, V) logits."""
    rows = max(1, SOFTMAX_LOGITS // logits_RV.shape[-1])
    ids_RM = ids.expand(len(logits_RV), -1)
    parts = []
    for some_RV, ids_PM in zip(logits_RV.split(rows), ids_RM.split(rows), strict=True):
        logits = some_RV.float()
        parts.append((logits.gather(-1, ids_PM) - logits.logsumexp(-1, keepdim=True)).double().cpu())
    return torch.cat(parts)


def check_causal(lm: HFLM) -> None:
    """Raises DataError if a prediction depends on a later token, as in a masked language model."""
    ids = np.arange(2, 10)[None].repeat(2, 0) % lm.model.config.vocab_size
    ids[1, -2] = 0
    logprob_BTV = lm.next_token_logits(ids, ids.shape[1] - 1).float().log_softmax(-1)
    if not torch.allclose(logprob_BTV[0, :-1], logprob_BTV[1, :-1], atol=1e-2):
        raise DataError(
            f"{lm.model.config.model_type} is not a causal language model: its predictions depend on later tokens; "
            "choose another model"
        )


def check_scaling(model: Any) -> None:
    """Raises DataError unless every rotary embedding of the model has the frequencies of its configuration."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    length = 2 * hf_positions.pretraining_len(model.config)
    device = next(model.parameters()).device
    for layer_type, parameters in hf_positions.layer_rope_parameters(model.config).items():
        if (rope_type := parameters.get("rope_type", "default")) == "default":
            continue
        of_type = {} if layer_type is None else {"layer_type": layer_type}
        prefix = "" if layer_type is None else f"{layer_type}_"
        init = ROPE_INIT_FUNCTIONS[rope_type]
        inv_freq_M, attention_factor = init(model.config, device, seq_len=length, **of_type)
        rotary_modules = [module for module in model.modules() if hasattr(module, f"{prefix}inv_freq")]
        consistent = bool(rotary_modules)
        for module in rotary_modules:
            # Frequencies that depend on the length are updated in the forward pass.
            position_ids = torch.tensor([[length - 1]], device=device)
            module(torch.zeros(1, 1, 1, device=device), position_ids, **of_type)
            actual_M = getattr(module, f"{prefix}inv_freq").float()
            actual_factor = getattr(module, f"{prefix}attention_scaling", 1.0)
            equal = actual_M.shape == inv_freq_M.shape and torch.allclose(actual_M, inv_freq_M)
            consistent = consistent and equal and abs(actual_factor - attention_factor) < 1e-6
        if not consistent:
            raise DataError(
                f"rope type {rope_type!r} has no effect on {model.config.model_type}: its code does not rotate as its "
                "config.json specifies; choose another model, or remove rope_scaling"
            )
