"""Ensembles against whole-model passes over each chunk by itself, pooled by their authors' formulas in numpy."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from posbench.errors import ConfigError, UndefinedError
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.lm import native
from posbench.lm.chunks import ChunkEnsemble
from posbench.lm.interface import Prompt
from posbench.lm.native import NativeLM
from posbench.lm.nbce import NBCE, nucleus
from posbench.model.gpt import GPT, Size
from posbench.position.scheme import PositionScheme

TRAIN_LEN, VOCABULARY, BOS = 16, 20, 19
RNG = np.random.default_rng(0)


class Learned(PositionScheme):
    """Positions that end with the training length, so that nobody reads past it unnoticed."""

    def check(self, length: int) -> None:
        assert length <= TRAIN_LEN

    def embed(self, x_BTW, geo, layer):
        return x_BTW + torch.sin(geo.q_pos_T.to(x_BTW.dtype))[:, None] if layer == 0 else x_BTW


MODEL = GPT(Size(2, 32, 4), VOCABULARY, Learned(), seed=1).double()
with torch.no_grad():  # sharper than at the start of a training, so that chunks differ in entropy
    MODEL.head.weight.mul_(40)


def inner() -> NativeLM:
    return NativeLM(MODEL, TRAIN_LEN, KernelDispatcher("auto"), nullcontext(), 64)


def ids(*shape: int) -> np.ndarray:
    return RNG.integers(BOS, size=shape)


def prompt_of(context: int, bos: bool, answer: int, max_new_tokens: int = 0) -> Prompt:
    text = ids(context)
    return Prompt(np.append(BOS, text[1:]) if bos else text, ids(3, 4), answer, max_new_tokens=max_new_tokens)


@torch.no_grad()
def logprob(sequence: np.ndarray, answer: int) -> np.ndarray:
    """(A, V): of the last `answer` ids of a sequence, each from all ids before it."""
    hidden = MODEL(torch.as_tensor(sequence, dtype=torch.long)[None, :-1])[0][0, -answer:]
    return MODEL.head(hidden).log_softmax(-1).numpy()


def chunks_of(prompt: Prompt, bos: bool) -> list[np.ndarray]:
    """Equal parts, each as long as the training length allows with the question."""
    body = prompt.context[1:] if bos else prompt.context
    room = TRAIN_LEN - (prompt.continuations.shape[1] + prompt.max_new_tokens - 1) - bos
    count = -(-len(body) // room)
    return [np.append([BOS] * bos, part).astype(int) for part in np.array_split(body, count)]


def nbce(chunks_KV: np.ndarray, prior_V: np.ndarray, beta: float) -> np.ndarray:
    """The loop body of test.py in bojone/NBCE, without top-p and without its bonus for staying."""
    logits = torch.as_tensor(np.concatenate([prior_V[None], chunks_KV]))
    entropy = -(logits.exp() * logits.clip(-100, 0)).sum(dim=-1)
    k = entropy[1:].argmin() + 1
    merged = (1 + beta) * logits[k] - beta * logits[0]
    return torch.where(logits[0] > -100, merged, logits[k]).log_softmax(-1).numpy()


def chunked(chunks_KV: np.ndarray, prior_V: np.ndarray) -> np.ndarray:
    return chunks_KV[(-(np.exp(chunks_KV) * chunks_KV).sum(-1)).argmin()]


def average(chunks_KV: np.ndarray, prior_V: np.ndarray) -> np.ndarray:
    return np.log(np.exp(chunks_KV).mean(0))


def naive(chunks_KV: np.ndarray, prior_V: np.ndarray) -> np.ndarray:
    """Bayes' own: the sum over chunks less n - 1 times the prior, here for n = 3."""
    assert len(chunks_KV) == 3
    product = np.exp(chunks_KV.sum(0) - 2 * prior_V)
    return np.log(product / product.sum())


CASES = {
    "nbce": (lambda: NBCE(inner(), BOS), lambda c, p: nbce(c, p, 0.25)),
    "nbce beta 1": (lambda: NBCE(inner(), BOS, beta=1.0), lambda c, p: nbce(c, p, 1.0)),
    "naive Bayes": (lambda: NBCE(inner(), BOS, beta=2.0, pooling="mean"), naive),
    "chunks": (lambda: ChunkEnsemble(inner(), BOS), chunked),
    "chunks average": (lambda: ChunkEnsemble(inner(), BOS, pooling="mean"), average),
}


def without(prompt: Prompt, bos: bool, continuation: np.ndarray, answer: int) -> np.ndarray:
    """What is read without context."""
    front = [BOS] if bos else prompt.context[-1:] if answer == prompt.continuations.shape[1] else []
    return np.append(front, continuation).astype(int)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("bos", "answer"), [(True, 4), (True, 1), (False, 4), (False, 2)])
def test_scores_are_the_formula_over_whole_passes(case, bos, answer, monkeypatch):
    """In one block and in blocks of two positions: 1e-5, since logits of up to 40 are rounded to float32."""
    make, formula = CASES[case]
    prompt = prompt_of(33, bos, answer)
    chunks = chunks_of(prompt, bos)
    assert len(chunks) == 3
    for held in (1 << 24, 2 * 4 * VOCABULARY):
        monkeypatch.setattr(native, "LOGITS", held)
        (scores,) = make().loglikelihood([prompt])
        for row, continuation in enumerate(prompt.continuations):
            read = [logprob(np.append(chunk, continuation), answer) for chunk in chunks]
            prior = logprob(without(prompt, bos, continuation, answer), answer)
            for place in range(answer):
                expected = formula(np.stack([one[place] for one in read]), prior[place])
                target = continuation[len(continuation) - answer + place]
                assert scores.logprob[row, place] == pytest.approx(expected[target], abs=1e-5)
                assert scores.greedy_ids[row, place] == expected.argmax()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bos", [True, False])
def test_generation_is_the_formula_token_by_token(case, bos):
    make, formula = CASES[case]
    prompt = prompt_of(26, bos, answer=0, max_new_tokens=3)
    chunks = chunks_of(prompt, bos)
    assert len(chunks) == 3
    (generated,) = make().generate([prompt])
    for row, continuation in enumerate(prompt.continuations):
        said = continuation
        for place in range(prompt.max_new_tokens):
            read = [logprob(np.append(np.append(chunk, said), 0), 1)[0] for chunk in chunks]
            prior = logprob(np.append(without(prompt, bos, said, 0), 0), 1)[0]
            expected = formula(np.stack(read), prior).argmax()
            assert generated.ids[row, place] == expected
            said = np.append(said, expected)


def test_many_questions_are_continued_a_few_at_a_time():
    prompt = prompt_of(40, True, answer=0, max_new_tokens=2)
    many = Prompt(prompt.context, ids(19, 4), 0, max_new_tokens=2)
    (together,) = NBCE(inner(), BOS).generate([many])
    singles = [
        Prompt(many.context, continuation[None], 0, max_new_tokens=2) for continuation in many.continuations
    ]
    apart = NBCE(inner(), BOS).generate(singles)
    np.testing.assert_array_equal(together.ids, np.concatenate([one.ids for one in apart]))


def test_within_the_training_length_chunks_are_the_model():
    prompt = prompt_of(10, True, 4)
    prompt.doc["kept"] = "by the task"
    (one,), (other,) = ChunkEnsemble(inner(), BOS).loglikelihood([prompt]), inner().loglikelihood([prompt])
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-5)
    np.testing.assert_array_equal(one.greedy_ids, other.greedy_ids)


def test_candidates_are_told_as_by_the_model():
    listed = np.array([3, 1, 7])
    prompt = Prompt(ids(10), ids(3, 4), 2, candidate_ids=listed)
    (plain,) = inner().loglikelihood([prompt])
    for row, continuation in enumerate(prompt.continuations):
        expected = logprob(np.append(prompt.context, continuation), 2)[0, listed]
        np.testing.assert_allclose(plain.candidate_logprobs[row], expected, atol=1e-5)
    (one,) = ChunkEnsemble(inner(), BOS).loglikelihood([prompt])
    np.testing.assert_allclose(one.candidate_logprobs, plain.candidate_logprobs, atol=1e-5)


def test_the_nucleus_is_that_of_transformers():
    from transformers import TopPLogitsWarper

    drawn = torch.randn(50, VOCABULARY, dtype=torch.float64).mul(2).log_softmax(-1)
    for top_p in (0.5, 0.95):
        np.testing.assert_allclose(
            nucleus(drawn.numpy(), top_p), TopPLogitsWarper(top_p)(None, drawn).numpy()
        )


def test_what_is_cut_is_handled_as_in_the_authors_code():
    """A token that the prior cut keeps its value, one that the chunk cut has none: no nan."""
    chunks = np.log([[[0.9, 0.08, 0.02]], [[0.4, 0.3, 0.3]]])
    prior = np.log([[[0.02, 0.08, 0.9]]])
    pooled = NBCE(inner(), BOS, top_p=0.95).pool(np.concatenate([chunks, prior]))[0]
    # Of the first chunk 0.9 and 0.08 stay, of the prior 0.9 (the last id) and 0.08.
    merged = np.array([0.9, np.exp(1.25 * np.log(0.08) - 0.25 * np.log(0.08)), 0])
    np.testing.assert_allclose(np.exp(pooled), merged / merged.sum(), atol=1e-12)


def test_a_question_that_leaves_no_room_has_no_answer():
    with pytest.raises(UndefinedError, match="leave none of the training length 16"):
        next(ChunkEnsemble(inner(), BOS).loglikelihood([Prompt(ids(20), ids(1, 17), 17)]))


@pytest.mark.parametrize(
    "settings", [{"beta": -1.0}, {"top_p": 0.0}, {"pooling": "best"}], ids=lambda one: next(iter(one))
)
def test_settings_are_checked_before_anything_is_read(settings):
    with pytest.raises(ConfigError):
        NBCE(None, None, **settings)
