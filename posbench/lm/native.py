"""A GPT of this package as an LM: one prefill of a context serves all of its continuations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from posbench.lm import generation
from posbench.lm.attention_weights import last_token_attention
from posbench.lm.batching import input_ids, run_batches
from posbench.lm.interface import AttentionWeights, Generated, Prompt, Scores
from posbench.model.attention import can_share_context
from posbench.model.gpt import GPT, KVCache
from posbench.position.call import Kernel

# Largest number of logits in memory at once: 64 MiB in float32.
LOGITS = 1 << 24
# Largest number of keys, counted once for each of the sequences that share them: a bias that depends on content may be
# written out for a query and all keys, 16 MiB a head.
SHARED_KEYS = 1 << 22

# (B, A, W) hidden states and (B, A) targets -> tensors whose first dimension is B.
Head = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class NativeLM:
    """A trained GPT, with its own scheme or an extension of it.

    Args:
        model: the GPT, on its device; set to evaluation mode.
        train_len: training length in tokens.
        kernel: computes attention.
        precision: makes the context of a forward pass, autocast or a null context, anew each time: an autocast that is
            entered again inside itself stays on.
        max_tokens_per_batch: largest number of tokens in one forward pass; a single longer sequence is still read.
    """

    def __init__(
        self,
        model: GPT,
        train_len: int,
        kernel: Kernel,
        precision: Callable[[], AbstractContextManager],
        max_tokens_per_batch: int,
    ) -> None:
        self.model, self.train_len = model.eval(), train_len
        self.kernel, self.precision, self.max_tokens_per_batch = kernel, precision, max_tokens_per_batch
        self.device = next(model.parameters()).device

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Computes the log-probabilities of the scored ids of each prompt, in order."""

        def score(hidden_BAW: Tensor, target_BA: Tensor) -> tuple[Tensor, ...]:
            return *self.score_targets(hidden_BAW, target_BA), hidden_BAW[:, 0]

        for prompt, (logprob_NA, greedy_NA, first_NW) in self.run(prompts, score):
            candidates = self.candidate_logprobs(first_NW, prompt.candidate_ids)
            yield Scores(logprob_NA.numpy(), greedy_NA.numpy(), candidates)

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Generates ids greedily after each continuation of each prompt, in order; see `generation`."""
        return generation.generate(self, prompts)

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Computes the attention weights of the last token read of each prompt, in order; see `attention_weights`."""
        for prompt in prompts:
            cache = self.prefill(prompt)
            ids_NT = self.tensor(input_ids(prompt, cache)[:, :-1])
            with torch.inference_mode(), self.precision():
                weight_NLHS = last_token_attention(
                    self.model,
                    self.kernel,
                    ids_NT,
                    cache=cache,
                    length=prompt.length,
                    batch=self.batch_size_for(prompt),
                )
            yield AttentionWeights(weight_NLHS.numpy())

    def vocab_logprobs(self, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """Yields (K, R, V) float64 nats: see `VocabLogprobsLM.vocab_logprobs`; at most LOGITS numbers at a time."""
        states = [hidden.flatten(0, 1) for _, (hidden,) in self.run(prompts, lambda hidden, _: (hidden,))]
        rows = max(1, LOGITS // (len(states) * self.model.head.out_features))
        for start in range(0, len(states[0]), rows):
            hidden_KRW = torch.stack([one[start : start + rows] for one in states])
            yield self.logits(hidden_KRW).double().log_softmax(-1).cpu().numpy()

    def start_decoding(self, prompt: Prompt) -> generation.BatchDecoder:
        """Reads a prompt and returns the state from which its continuations are decoded in parallel."""
        cache = self.prefill(prompt)
        return generation.BatchDecoder(self, input_ids(prompt, cache), cache, prompt.length)

    def run(self, prompts: Iterable[Prompt], head: Head) -> Iterator[tuple[Prompt, tuple[Tensor, ...]]]:
        """Yields each prompt with the (N, ..) results of `head` at its scored positions."""
        return run_batches(
            prompts,
            lambda ids, cache, prompt: self.read(ids, cache, prompt, head),
            batch_size=self.scoring_batch_size,
            prefill=self.prefill,
        )

    def read(self, ids: np.ndarray, cache: KVCache | None, prompt: Prompt, head: Head) -> tuple[Tensor, ...]:
        """Runs one forward pass over (B, T) ids and applies `head` to the states that predict the scored ids."""
        with torch.inference_mode(), self.precision():
            hidden_BTW, _ = self.forward(ids[:, :-1], cache, prompt.length)
            return head(hidden_BTW[:, -prompt.n_scored :], self.tensor(ids[:, -prompt.n_scored :]))

    def batch_size_for(self, prompt: Prompt) -> int:
        """Number of sequences of the prompt's length that fit in one forward pass."""
        return max(1, self.max_tokens_per_batch // (prompt.length + 1))

    def scoring_batch_size(self, prompt: Prompt) -> int:
        """Number of sequences to score in one forward pass.

        Continuations need no copy of a context that they share, and a GPU reads it once for all of them. The CPU gains
        nothing.
        """
        whole, shares = self.batch_size_for(prompt), self.shares_prefill(prompt)
        if self.device.type == "cpu" or not (shares and can_share_context(self.model.scheme)):
            return whole
        own = self.max_tokens_per_batch // (prompt.continuations.shape[1] + 1)
        return max(whole, min(own, SHARED_KEYS // prompt.length))

    def shares_prefill(self, prompt: Prompt) -> bool:
        """Whether the context of a prompt is read once for all of its continuations."""
        shares = len(prompt.continuations) > 1 and self.model.scheme.traits.shared_prefill
        return shares and len(prompt.context) > 1

    def prefill(self, prompt: Prompt) -> KVCache | None:
        """Caches all but the last id of a context that several continuations share.

        Returns None for a single continuation, or if the scheme does not allow a shared prefill.
        """
        if not self.shares_prefill(prompt):
            return None
        return self.forward(prompt.context[None, :-1], None, prompt.length, use_cache=True)[1]

    def forward(
        self, ids: np.ndarray, cache: KVCache | None, length: int, use_cache: bool = False
    ) -> tuple[Tensor, KVCache | None]:
        """Computes (B, T, W) final hidden states of (B, T) ids, and the cache if `use_cache`.

        Args:
            cache: keys and values of the ids before.
            length: declared length of the whole sequence in tokens.
        """
        with torch.inference_mode(), self.precision():
            return self.model(
                self.tensor(ids),
                kernel=self.kernel,
                cache=cache,
                length=length,
                use_cache=use_cache,
            )

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes (.., V) float32 logits of (.., W) hidden states."""
        with torch.inference_mode(), self.precision():
            return self.model.head(hidden).float()

    def candidate_logprobs(self, hidden_NW: Tensor, candidate_ids: np.ndarray | None) -> np.ndarray | None:
        """Computes (N, M) float64 nats of M candidate ids at (N, W) hidden states; None without candidates."""
        if candidate_ids is None:
            return None
        with torch.inference_mode():
            logits = self.logits(hidden_NW)
            logprob = logits[:, self.tensor(candidate_ids)] - logits.logsumexp(-1, keepdim=True)
            return logprob.double().cpu().numpy()

    def tensor(self, ids: np.ndarray) -> Tensor:
        """Moves ids to the model's device, as int64."""
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)

    def score_targets(self, hidden_BAW: Tensor, target_BA: Tensor) -> tuple[Tensor, Tensor]:
        """Computes (B, A) float64 nats of the targets and (B, A) greedy ids, both on the CPU.

        At most LOGITS logits are in memory at a time.
        """
        hidden, target = hidden_BAW.flatten(0, 1), target_BA.flatten()
        rows = max(1, LOGITS // self.model.head.out_features)
        logprob, greedy_ids = [], []
        for start in range(0, len(target), rows):
            part = slice(start, start + rows)
            logits = self.logits(hidden[part])
            target_logits = logits.gather(-1, target[part, None])[:, 0]
            logprob.append((target_logits - logits.logsumexp(-1)).double().cpu())
            greedy_ids.append(logits.argmax(-1).cpu())
        return torch.cat(logprob).view(target_BA.shape), torch.cat(greedy_ids).view(target_BA.shape)
