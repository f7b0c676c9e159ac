"""Ensembles against separate passes over each chunk, pooled with the formulas of the papers in numpy."""

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
    """Positions up to the training length, so that a longer input is an error."""

    def check(self, length: int) -> None:
        assert length <= TRAIN_LEN

    def embed(self, x_BTW, geo, layer):
        return x_BTW + torch.sin(geo.q_pos_T.to(x_BTW.dtype))[:, None] if layer == 0 else x_BTW


MODEL = GPT(Size(2, 32, 4), VOCABULARY, Learned(), seed=1).double()
with torch.no_grad():  # sharpens the distributions, so that the entropies of chunks differ
    MODEL.head.weight.mul_(40)


def inner() -> NativeLM:
    return NativeLM(MODEL, TRAIN_LEN, KernelDispatcher("auto"), nullcontext, 64)


def ids(*shape: int) -> np.ndarray:
    return RNG.integers(BOS, size=shape)


def prompt_of(context: int, bos: bool, answer: int, max_new_tokens: int = 0) -> Prompt:
    text = ids(context)
    return Prompt(np.append(BOS, text[1:]) if bos else text, ids(3, 4), answer, max_new_tokens=max_new_tokens)


def test_every_chunk_is_followed_by_the_question():
    """Fault: a question at the end of the context was read after the last chunk only."""
    text = ids(30)
    prompt = Prompt(np.concatenate([[BOS], text, [3, 1, 2]]), ids(2, 1), 1, question_len=3)
    chunks = ChunkEnsemble(inner(), BOS).chunk_prompts(prompt)
    assert len(chunks) == 3
    for chunk in chunks:
        assert chunk.length <= TRAIN_LEN
        assert chunk.context[0] == BOS
        assert chunk.context[-3:].tolist() == [3, 1, 2]
    assert np.array_equal(np.concatenate([chunk.context[1:-3] for chunk in chunks]), text)


@torch.no_grad()
def logprob(sequence: np.ndarray, answer: int) -> np.ndarray:
    """(A, V) log-probabilities at the last `answer` ids of a sequence, in one pass."""
    hidden = MODEL(torch.as_tensor(sequence, dtype=torch.long)[None, :-1])[0][0, -answer:]
    return MODEL.head(hidden).log_softmax(-1).numpy()


def chunks_of(prompt: Prompt, bos: bool) -> list[np.ndarray]:
    """Equal parts of the context, as long as fits in the training length with the continuation."""
    body = prompt.context[1:] if bos else prompt.context
    room = TRAIN_LEN - (prompt.continuations.shape[1] + prompt.max_new_tokens - 1) - bos
    count = -(-len(body) // room)
    return [np.append([BOS] * bos, part).astype(int) for part in np.array_split(body, count)]


def nbce(chunks_KV: np.ndarray, prior_V: np.ndarray, beta: float) -> np.ndarray:
    """The loop body of test.py in bojone/NBCE, without top-p and without its bonus for the previous chunk."""
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
    """Naive Bayes: the sum over n chunks minus n - 1 times the prior, for n = 3."""
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
    """The ids that are read without context."""
    prefix = [BOS] if bos else prompt.context[-1:] if answer == prompt.continuations.shape[1] else []
    return np.append(prefix, continuation).astype(int)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("bos", "answer"), [(True, 4), (True, 1), (False, 4), (False, 2)])
def test_scores_equal_the_formula(case, bos, answer, monkeypatch):
    """In one block and in blocks of two positions; within 1e-5, since logits of up to 40 are rounded to float32."""
    make, formula = CASES[case]
    prompt = prompt_of(33, bos, answer)
    chunks = chunks_of(prompt, bos)
    assert len(chunks) == 3
    for max_logits in (1 << 24, 2 * 4 * VOCABULARY):
        monkeypatch.setattr(native, "LOGITS", max_logits)
        (scores,) = make().loglikelihood([prompt])
        for row, continuation in enumerate(prompt.continuations):
            by_chunk = [logprob(np.append(chunk, continuation), answer) for chunk in chunks]
            prior = logprob(without(prompt, bos, continuation, answer), answer)
            for i in range(answer):
                expected = formula(np.stack([one[i] for one in by_chunk]), prior[i])
                target = continuation[len(continuation) - answer + i]
                assert scores.logprob[row, i] == pytest.approx(expected[target], abs=1e-5)
                assert scores.greedy_ids[row, i] == expected.argmax()


@pytest.mark.parametrize("bos", [True, False])
def test_the_prior_reads_the_question(bos):
    """Fault: the prior was conditioned on the bos alone, not on the question at the end of the context."""
    text, question = ids(20), np.array([3, 1, 2])
    context = np.concatenate([[BOS] * bos, text, question]).astype(int)
    prompt = Prompt(context, ids(3, 4), 4, question_len=3)
    (scores,) = NBCE(inner(), BOS).loglikelihood([prompt])
    chunks = ChunkEnsemble(inner(), BOS).chunk_prompts(prompt)
    assert len(chunks) > 1
    for row, continuation in enumerate(prompt.continuations):
        by_chunk = [logprob(np.append(chunk.context, continuation), 4) for chunk in chunks]
        alone = np.concatenate([[BOS] * bos, question, continuation]).astype(int)
        prior = logprob(alone, 4)
        for i, target in enumerate(continuation):
            expected = nbce(np.stack([one[i] for one in by_chunk]), prior[i], 0.25)
            assert scores.logprob[row, i] == pytest.approx(expected[target], abs=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bos", [True, False])
def test_generation_equals_the_formula_token_by_token(case, bos):
    make, formula = CASES[case]
    prompt = prompt_of(26, bos, answer=0, max_new_tokens=3)
    chunks = chunks_of(prompt, bos)
    assert len(chunks) == 3
    (generated,) = make().generate([prompt])
    for row, continuation in enumerate(prompt.continuations):
        ids_so_far = continuation
        for i in range(prompt.max_new_tokens):
            by_chunk = [logprob(np.append(np.append(chunk, ids_so_far), 0), 1)[0] for chunk in chunks]
            prior = logprob(np.append(without(prompt, bos, ids_so_far, 0), 0), 1)[0]
            expected = formula(np.stack(by_chunk), prior).argmax()
            assert generated.ids[row, i] == expected
            ids_so_far = np.append(ids_so_far, expected)


def test_many_continuations_are_decoded_in_parts():
    prompt = prompt_of(40, True, answer=0, max_new_tokens=2)
    many = Prompt(prompt.context, ids(19, 4), 0, max_new_tokens=2)
    (together,) = NBCE(inner(), BOS).generate([many])
    singles = [
        Prompt(many.context, continuation[None], 0, max_new_tokens=2) for continuation in many.continuations
    ]
    apart = NBCE(inner(), BOS).generate(singles)
    np.testing.assert_array_equal(together.ids, np.concatenate([one.ids for one in apart]))


def test_within_the_training_length_the_ensemble_equals_the_model():
    prompt = prompt_of(10, True, 4)
    prompt.doc["field"] = "ignored by models"
    (one,), (other,) = ChunkEnsemble(inner(), BOS).loglikelihood([prompt]), inner().loglikelihood([prompt])
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-5)
    np.testing.assert_array_equal(one.greedy_ids, other.greedy_ids)


def test_candidates_are_scored_as_by_the_model():
    candidates = np.array([3, 1, 7])
    prompt = Prompt(ids(10), ids(3, 4), 2, candidate_ids=candidates)
    (plain,) = inner().loglikelihood([prompt])
    for row, continuation in enumerate(prompt.continuations):
        expected = logprob(np.append(prompt.context, continuation), 2)[0, candidates]
        np.testing.assert_allclose(plain.candidate_logprobs[row], expected, atol=1e-5)
    (one,) = ChunkEnsemble(inner(), BOS).loglikelihood([prompt])
    np.testing.assert_allclose(one.candidate_logprobs, plain.candidate_logprobs, atol=1e-5)


def test_the_nucleus_equals_that_of_transformers():
    from transformers import TopPLogitsWarper

    logprobs = torch.randn(50, VOCABULARY, dtype=torch.float64).mul(2).log_softmax(-1)
    for top_p in (0.5, 0.95):
        np.testing.assert_allclose(
            nucleus(logprobs.numpy(), top_p), TopPLogitsWarper(top_p)(None, logprobs).numpy()
        )


def test_truncated_ids_are_handled_as_in_the_authors_code():
    """An id truncated in the prior keeps the chunk's value; one truncated in the chunk has probability 0, not nan."""
    chunks = np.log([[[0.9, 0.08, 0.02]], [[0.4, 0.3, 0.3]]])
    prior = np.log([[[0.02, 0.08, 0.9]]])
    pooled = NBCE(inner(), BOS, top_p=0.95).pool(np.concatenate([chunks, prior]))[0]
    # The first chunk keeps 0.9 and 0.08; the prior keeps 0.9 (of the last id) and 0.08.
    merged = np.array([0.9, np.exp(1.25 * np.log(0.08) - 0.25 * np.log(0.08)), 0])
    np.testing.assert_allclose(np.exp(pooled), merged / merged.sum(), atol=1e-12)


def test_a_question_that_fills_the_training_length_is_undefined():
    with pytest.raises(UndefinedError, match="leave none of the training length 16"):
        next(ChunkEnsemble(inner(), BOS).loglikelihood([Prompt(ids(20), ids(1, 17), 17)]))


def test_chunks_without_a_common_likely_id():
    """Fault: the mean over chunks whose nuclei share no id was not a number."""
    # The first position: two certain chunks that disagree. The second: one id is likely in both.
    chunks = np.array([[[0.97, 0.02, 0.01], [0.5, 0.5, 0.0]], [[0.01, 0.97, 0.02], [0.5, 0.0, 0.5]]])
    prior = np.full((1, 2, 3), 1 / 3)
    with np.errstate(divide="ignore"):
        logprob = np.log(np.concatenate([chunks, prior]))
    pooled = NBCE(inner(), BOS, pooling="mean", top_p=0.9).pool(logprob)
    product = np.sqrt(chunks[:, 0].prod(0)) ** 1.25
    np.testing.assert_allclose(np.exp(pooled), [product / product.sum(), [1, 0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"beta": -1.0}, {"top_p": 0.0}, {"pooling": "best"}], ids=lambda one: next(iter(one))
)
def test_invalid_settings(settings):
    with pytest.raises(ConfigError):
        NBCE(None, None, **settings)
