"""A posbench model as an LM: one prefill of a context answers all of its questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby, tee

import numpy as np
import torch
from torch import Tensor

from posbench.lm import generation
from posbench.lm.attention_weights import last_token_attention
from posbench.lm.interface import AttentionWeights, Generated, Prompt, Scores
from posbench.model.gpt import GPT, KVCache
from posbench.position.call import Kernel

# Logits held at once: 64 MiB in float32.
LOGITS = 1 << 24

# (B, A, W) hidden states and (B, A) targets -> tensors of B rows each.
Finish = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class NativeLM:
    """A trained model with a scheme of its own or an extension around it.

    Args:
        kernel: what computes attention.
        precision: autocast or nothing, entered around each pass.
        max_tokens_per_batch: short prompts of one shape are scored together up to this many tokens.
    """

    def __init__(
        self,
        model: GPT,
        train_len: int,
        kernel: Kernel,
        precision: AbstractContextManager,
        max_tokens_per_batch: int,
    ) -> None:
        self.model, self.train_len = model.eval(), train_len
        self.kernel, self.precision, self.max_tokens_per_batch = kernel, precision, max_tokens_per_batch
        self.device = next(model.parameters()).device

    def loglikelihood(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order; prompts of one shape that follow each other share passes."""

        def finish(hidden_BAW: Tensor, target_BA: Tensor) -> tuple[Tensor, ...]:
            return *self.measure(hidden_BAW, target_BA), hidden_BAW[:, 0]

        prompts, asked = tee(prompts)
        for prompt, (logprob, greedy_ids, first_NW) in zip(
            prompts, self.answered(asked, finish), strict=True
        ):
            yield Scores(
                logprob.numpy(), greedy_ids.numpy(), self.candidate_logprobs(first_NW, prompt.candidate_ids)
            )

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[Generated]:
        """Greedily generated ids after each prompt's continuations, in order; see `generation`."""
        return generation.generate(self, prompts)

    def attention_weights(self, prompts: Iterable[Prompt]) -> Iterator[AttentionWeights]:
        """Attention weights of each prompt, in order; see `attention_weights`."""
        for prompt in prompts:
            cache = self.prefill(prompt)
            ids_NT, length = self.tensor(self.input_ids(prompt, cache)[:, :-1]), prompt.length
            with torch.inference_mode(), self.precision:
                weight_NLHS = last_token_attention(
                    self.model,
                    self.kernel,
                    ids_NT,
                    cache=cache,
                    length=length,
                    batch=self.batch_size_for(prompt),
                )
            yield AttentionWeights(weight_NLHS.numpy())

    def vocab_logprobs(self, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """(K, R, V) float64 nats: see `VocabLogprobsLM.vocab_logprobs`; at most LOGITS numbers at a time."""
        with torch.inference_mode():
            states = [hidden.flatten(0, 1) for (hidden,) in self.answered(prompts, lambda h, _: (h,))]
            rows = max(1, LOGITS // (len(states) * self.model.head.out_features))
            for start in range(0, len(states[0]), rows):
                hidden_KRW = torch.stack([one[start : start + rows] for one in states])
                yield self.logits(hidden_KRW).double().log_softmax(-1).cpu().numpy()

    def start_decoding(self, prompt: Prompt) -> generation.BatchDecoder:
        """The continuations of a prompt, to be continued token by token together."""
        cache = self.prefill(prompt)
        return generation.BatchDecoder(self, self.input_ids(prompt, cache), cache, prompt.length)

    def answered(self, prompts: Iterable[Prompt], finish: Finish) -> Iterator[tuple[Tensor, ...]]:
        """What `finish` makes of the answers of each prompt, (N, A, ..), in order."""
        for _, alike in groupby(prompts, key=lambda p: (len(p.context), p.continuations.shape, p.n_scored)):
            waiting: list[Prompt] = []
            for prompt in alike:
                if len(prompt.continuations) > 1:
                    yield self.questions(prompt, finish)
                    continue
                waiting.append(prompt)
                if len(waiting) == self.batch_size_for(prompt):
                    yield from self.together(waiting, finish)
                    waiting = []
            if waiting:
                yield from self.together(waiting, finish)

    def batch_size_for(self, prompt: Prompt) -> int:
        """How many sequences as long as a prompt are read in one pass."""
        return max(1, self.max_tokens_per_batch // (prompt.length + 1))

    def together(self, prompts: list[Prompt], finish: Finish) -> Iterator[tuple[Tensor, ...]]:
        """One pass over whole prompts with one continuation each."""
        ids = np.concatenate([self.input_ids(prompt, None) for prompt in prompts])
        parts = self.read(ids, prompts[0].n_scored, None, prompts[0].length, finish)
        for row in range(len(prompts)):
            yield tuple(part[row : row + 1] for part in parts)

    def questions(self, prompt: Prompt, finish: Finish) -> tuple[Tensor, ...]:
        """The continuations as a batch over the keys and values of their context, or each with its context."""
        cache = self.prefill(prompt)
        ids, batch = self.input_ids(prompt, cache), self.batch_size_for(prompt)
        parts = [
            self.read(ids[start : start + batch], prompt.n_scored, cache, prompt.length, finish)
            for start in range(0, len(ids), batch)
        ]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def prefill(self, prompt: Prompt) -> KVCache | None:
        """One pass over what a prompt's continuations share, or None where nothing may be shared.

        The last id of the context is read with the continuation, whose first id it may have to predict.
        """
        shares = len(prompt.continuations) > 1 and self.model.scheme.traits.shared_prefill
        if not shares or len(prompt.context) < 2:
            return None
        return self.forward(prompt.context[None, :-1], None, prompt.length, use_cache=True)[1]

    def input_ids(self, prompt: Prompt, cache: KVCache | None) -> np.ndarray:
        """(N, ..) the ids of each continuation and of its context, as far as a cache does not hold that."""
        context = prompt.context[cache.length if cache else 0 :]
        return np.concatenate(
            [np.tile(context, (len(prompt.continuations), 1)), prompt.continuations], axis=1
        )

    def read(
        self, ids: np.ndarray, n_scored: int, cache: KVCache | None, length: int, finish: Finish
    ) -> tuple[Tensor, ...]:
        """What is made of the last `n_scored` of the ids (B, ..), which may continue a cache."""
        with torch.inference_mode(), self.precision:
            hidden, _ = self.forward(ids[:, :-1], cache, length)
            return finish(hidden[:, -n_scored:], self.tensor(ids[:, -n_scored:]))

    def forward(
        self, ids: np.ndarray, cache: KVCache | None, length: int, use_cache: bool = False
    ) -> tuple[Tensor, KVCache | None]:
        """(B, T, W) final hidden states of the ids, in a sequence declared as `length` tokens."""
        with torch.inference_mode(), self.precision:
            return self.model(
                self.tensor(ids),
                kernel=self.kernel,
                cache=cache,
                length=length,
                use_cache=use_cache,
            )

    def logits(self, hidden: Tensor) -> Tensor:
        """(.., W) -> (.., V) float32."""
        with torch.inference_mode(), self.precision:
            return self.model.head(hidden).float()

    def candidate_logprobs(self, hidden_NW: Tensor, candidate_ids: np.ndarray | None) -> np.ndarray | None:
        """(N, V) float64 nats of the ids that a prompt lists, where it does."""
        if candidate_ids is None:
            return None
        with torch.inference_mode():
            logits = self.logits(hidden_NW)
            listed = logits[:, self.tensor(candidate_ids)] - logits.logsumexp(-1, keepdim=True)
            return listed.double().cpu().numpy()

    def tensor(self, ids: np.ndarray) -> Tensor:
        """Ids on the model's device."""
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)

    def measure(self, hidden_BAW: Tensor, target_BA: Tensor) -> tuple[Tensor, Tensor]:
        """(B, A) log-probability and greedy id, a bounded number of logits at a time."""
        hidden, target = hidden_BAW.flatten(0, 1), target_BA.flatten()
        rows = max(1, LOGITS // self.model.head.out_features)
        logprob, greedy_ids = [], []
        for start in range(0, len(target), rows):
            part = slice(start, start + rows)
            logits = self.logits(hidden[part])
            chosen = logits.gather(-1, target[part, None])[:, 0]
            logprob.append((chosen - logits.logsumexp(-1)).double().cpu())
            greedy_ids.append(logits.argmax(-1).cpu())
        return torch.cat(logprob).view(target_BA.shape), torch.cat(greedy_ids).view(target_BA.shape)
