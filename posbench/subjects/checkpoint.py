"""A posbench model as a subject: one prefill of a context answers all of its questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from posbench.attend import Kernel
from posbench.model.gpt import GPT, Cache
from posbench.scheme import PositionScheme
from posbench.subjects.subject import Prompt, Scores

# Logits held at once: 64 MiB in float32.
LOGITS = 1 << 24


class CheckpointSubject:
    """A trained model with a scheme of its own or an extension around it.

    Args:
        scheme: the model's scheme, or an extension around that.
        kernel: what computes attention.
        precision: autocast or nothing, entered around each pass.
        tokens_per_pass: short prompts of one shape are scored together up to this many tokens.
    """

    def __init__(
        self,
        model: GPT,
        scheme: PositionScheme,
        train_len: int,
        kernel: Kernel,
        precision: AbstractContextManager,
        tokens_per_pass: int,
    ) -> None:
        self.model, self.scheme, self.train_len = model.eval(), scheme, train_len
        self.kernel, self.precision, self.tokens_per_pass = kernel, precision, tokens_per_pass
        self.device = next(model.parameters()).device

    def score(self, prompts: Iterable[Prompt]) -> Iterator[Scores]:
        """Scores of each prompt, in order; prompts of one shape that follow each other share passes."""
        for _, alike in groupby(prompts, key=lambda p: (len(p.context), p.suffixes.shape, p.answer)):
            waiting: list[Prompt] = []
            for prompt in alike:
                if len(prompt.suffixes) > 1 and self.scheme.traits.shared_prefill:
                    yield self.shared(prompt)
                elif len(prompt.suffixes) > 1:
                    yield self.apart(prompt)
                else:
                    waiting.append(prompt)
                    if (len(waiting) + 1) * (prompt.length + 1) > self.tokens_per_pass:
                        yield from self.together(waiting)
                        waiting = []
            if waiting:
                yield from self.together(waiting)

    def together(self, prompts: list[Prompt]) -> Iterator[Scores]:
        """One pass over whole prompts with one suffix each."""
        ids = np.stack([np.concatenate([prompt.context, prompt.suffixes[0]]) for prompt in prompts])
        logprob, top = self.read(ids, prompts[0].answer, None, prompts[0].length)
        for row in range(len(prompts)):
            yield Scores(logprob[row : row + 1], top[row : row + 1])

    def apart(self, prompt: Prompt) -> Scores:
        """Each question with a context of its own."""
        singles = [Prompt(prompt.context, suffix[None], prompt.answer) for suffix in prompt.suffixes]
        return joined(list(self.score(singles)))

    def shared(self, prompt: Prompt) -> Scores:
        """One pass over the context, then the suffixes as a batch over its keys and values."""
        context = torch.from_numpy(prompt.context.astype(np.int64)).to(self.device)
        # The last id of the context is read with the suffix, whose first id it may have to predict.
        ids = np.concatenate(
            [np.broadcast_to(prompt.context[-1:], (len(prompt.suffixes), 1)), prompt.suffixes], axis=1
        )
        if len(context) == 1:
            return Scores(*self.read(ids, prompt.answer, None, prompt.length))
        with torch.inference_mode(), self.precision:
            _, cache = self.model(
                context[None, :-1], scheme=self.scheme, kernel=self.kernel, length=prompt.length, keep=True
            )
        batch = max(1, self.tokens_per_pass // (prompt.length + 1))
        parts = [
            Scores(*self.read(ids[start : start + batch], prompt.answer, cache, prompt.length))
            for start in range(0, len(ids), batch)
        ]
        return joined(parts)

    def read(
        self, ids: np.ndarray, answer: int, cache: Cache | None, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, A) log-probabilities and top ids of the last `answer` of the ids, which may continue a cache."""
        ids_BT = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        with torch.inference_mode(), self.precision:
            hidden, _ = self.model(
                ids_BT[:, :-1], scheme=self.scheme, kernel=self.kernel, cache=cache, length=length
            )
            return self.measure(hidden[:, -answer:], ids_BT[:, -answer:])

    def measure(self, hidden_BAW: Tensor, target_BA: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability and top id, a bounded number of logits at a time."""
        hidden, target = hidden_BAW.flatten(0, 1), target_BA.flatten()
        rows = max(1, LOGITS // self.model.head.out_features)
        logprob, top = [], []
        for start in range(0, len(target), rows):
            part = slice(start, start + rows)
            logits = self.model.head(hidden[part]).float()
            chosen = logits.gather(-1, target[part, None])[:, 0]
            logprob.append((chosen - logits.logsumexp(-1)).double().cpu())
            top.append(logits.argmax(-1).cpu())
        shape = target_BA.shape
        return torch.cat(logprob).view(shape).numpy(), torch.cat(top).view(shape).numpy()


def joined(parts: list[Scores]) -> Scores:
    """The scores of several parts of one prompt's suffixes."""
    return Scores(np.concatenate([p.logprob for p in parts]), np.concatenate([p.top for p in parts]))
