"""A small corpus of prose for tasks that need a tokenizer, and answers of imaginary models."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posbench.data import subword
from posbench.data.shard import Shard
from posbench.data.tokenizer import Bytes
from posbench.data.vocabulary import Vocabulary
from posbench.lm.interface import Generated, Prompt, Scores

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
WORDS = "the sea was calm and 12345 gulls cried over an old 987 boat at dawn".split()  # noqa: SIM905


def sample(name: str) -> Path:
    """Path of a reference file beside the checkout; skips the test in a clone without it."""
    path = REFERENCE / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout, in ../shared/reference")
    return path


@dataclass(frozen=True)
class Prose:
    """Documents of randomly drawn words."""

    tokenizer: Any
    name: str = "prose"
    documents: int = 12
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self.texts.extend(" ".join(rng.choice(WORDS, 800)) + ".\n" for _ in range(self.documents))

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer.name, self.tokenizer.vocab_size)

    evaluated_split = "test"

    @property
    def evaluated(self) -> Shard:
        return self.split("test")

    def split(self, name: str) -> Shard:
        assert name == "test"
        bos = self.vocabulary.bos
        ids = [np.concatenate([[bos], self.tokenizer.encode(text)]) for text in self.texts]
        starts = np.cumsum([0, *map(len, ids)])
        return Shard("test", np.concatenate(ids), starts, [f"d{i}" for i in range(len(ids))])

    def text(self, ids: np.ndarray) -> str:
        """Decodes the ids of a prompt without its bos."""
        return self.tokenizer.decode(ids[ids != self.vocabulary.bos])


@cache
def prose(kind: str = "bytes") -> Prose:
    """The corpus under bytes, or under a BPE whose token counts of UUIDs vary."""
    if kind == "bytes":
        return Prose(Bytes())
    rng = np.random.default_rng(2)
    numbers = (" ".join(f"{n:x} {n}" for n in rng.integers(0, 5000, 200)) for _ in range(20))
    return Prose(subword.train(600, [" ".join(WORDS) * 5, *numbers]))


def whole(prompt: Prompt, row: int = 0) -> np.ndarray:
    """The ids of the context and one continuation."""
    return np.concatenate([prompt.context, prompt.continuations[row]])


def confident_scores(prompt: Prompt, wrong: tuple[int, ...] = ()) -> Scores:
    """Scores of a model that predicts all answers but those of the continuations in `wrong`."""
    answer = prompt.continuations[:, -prompt.n_scored :]
    greedy, logprob = answer.copy(), np.full(answer.shape, -0.1)
    for row in wrong:
        greedy[row, -1] += 1
        logprob[row] = -5.0
    return Scores(logprob, greedy)


def generated_text(prompt: Prompt, corpus: Prose, text: Callable[[int], str]) -> Generated:
    """Generated ids of a text for each continuation, cut or padded with bos to max_new_tokens."""
    rows = []
    for row in range(len(prompt.continuations)):
        ids = corpus.tokenizer.encode(text(row))[: prompt.max_new_tokens]
        rows.append(np.concatenate([ids, np.full(prompt.max_new_tokens - len(ids), corpus.vocabulary.bos)]))
    return Generated(np.stack(rows).astype(np.int64))
