"""Ensembles against whole-model passes over each chunk by itself, pooled by their authors' formulas in numpy."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from posbench.errors import ConfigError, UndefinedError
from posbench.kernels.dispatcher import Recording
from posbench.lm import native
from posbench.lm.chunks import Chunks
from posbench.lm.interface import Prompt
from posbench.lm.native import CheckpointSubject
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


def inner() -> CheckpointSubject:
    return CheckpointSubject(MODEL, MODEL.scheme, TRAIN_LEN, Recording("auto"), nullcontext(), 64)


def ids(*shape: int) -> np.ndarray:
    return RNG.integers(BOS, size=shape)


def prompt_of(context: int, bos: bool, answer: int, new: int = 0) -> Prompt:
    text = ids(context)
    return Prompt(np.append(BOS, text[1:]) if bos else text, ids(3, 4), answer, new=new)


@torch.no_grad()
def logprob(sequence: np.ndarray, answer: int) -> np.ndarray:
    """(A, V): of the last `answer` ids of a sequence, each from all ids before it."""
    hidden = MODEL(torch.as_tensor(sequence, dtype=torch.long)[None, :-1])[0][0, -answer:]
    return MODEL.head(hidden).log_softmax(-1).numpy()


def chunks_of(prompt: Prompt, bos: bool) -> list[np.ndarray]:
    """Equal parts, each as long as the training length allows with the question."""
    body = prompt.context[1:] if bos else prompt.context
    room = TRAIN_LEN - (prompt.suffixes.shape[1] + prompt.new - 1) - bos
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
    "naive Bayes": (lambda: NBCE(inner(), BOS, beta=2.0, pooling="average"), naive),
    "chunks": (lambda: Chunks(inner(), BOS), chunked),
    "chunks average": (lambda: Chunks(inner(), BOS, pooling="average"), average),
}


def without(prompt: Prompt, bos: bool, suffix: np.ndarray, answer: int) -> np.ndarray:
    """What is read without context."""
    front = [BOS] if bos else prompt.context[-1:] if answer == prompt.suffixes.shape[1] else []
    return np.append(front, suffix).astype(int)


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
        (scores,) = make().score([prompt])
        for row, suffix in enumerate(prompt.suffixes):
            read = [logprob(np.append(chunk, suffix), answer) for chunk in chunks]
            prior = logprob(without(prompt, bos, suffix, answer), answer)
            for place in range(answer):
                expected = formula(np.stack([one[place] for one in read]), prior[place])
                target = suffix[len(suffix) - answer + place]
                assert scores.logprob[row, place] == pytest.approx(expected[target], abs=1e-5)
                assert scores.top[row, place] == expected.argmax()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bos", [True, False])
def test_generation_is_the_formula_token_by_token(case, bos):
    make, formula = CASES[case]
    prompt = prompt_of(26, bos, answer=0, new=3)
    chunks = chunks_of(prompt, bos)
    assert len(chunks) == 3
    (generated,) = make().generate([prompt])
    for row, suffix in enumerate(prompt.suffixes):
        said = suffix
        for place in range(prompt.new):
            read = [logprob(np.append(np.append(chunk, said), 0), 1)[0] for chunk in chunks]
            prior = logprob(np.append(without(prompt, bos, said, 0), 0), 1)[0]
            expected = formula(np.stack(read), prior).argmax()
            assert generated.ids[row, place] == expected
            said = np.append(said, expected)


def test_many_questions_are_continued_a_few_at_a_time():
    prompt = prompt_of(40, True, answer=0, new=2)
    many = Prompt(prompt.context, ids(19, 4), 0, new=2)
    (together,) = NBCE(inner(), BOS).generate([many])
    singles = [Prompt(many.context, suffix[None], 0, new=2) for suffix in many.suffixes]
    apart = NBCE(inner(), BOS).generate(singles)
    np.testing.assert_array_equal(together.ids, np.concatenate([one.ids for one in apart]))


def test_within_the_training_length_chunks_are_the_model():
    prompt = prompt_of(10, True, 4)
    prompt.facts["kept"] = "by the task"
    (one,), (other,) = Chunks(inner(), BOS).score([prompt]), inner().score([prompt])
    np.testing.assert_allclose(one.logprob, other.logprob, atol=1e-5)
    np.testing.assert_array_equal(one.top, other.top)


def test_candidates_are_told_as_by_the_model():
    listed = np.array([3, 1, 7])
    prompt = Prompt(ids(10), ids(3, 4), 2, candidates=listed)
    (plain,) = inner().score([prompt])
    for row, suffix in enumerate(prompt.suffixes):
        expected = logprob(np.append(prompt.context, suffix), 2)[0, listed]
        np.testing.assert_allclose(plain.candidates[row], expected, atol=1e-5)
    (one,) = Chunks(inner(), BOS).score([prompt])
    np.testing.assert_allclose(one.candidates, plain.candidates, atol=1e-5)


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
        next(Chunks(inner(), BOS).score([Prompt(ids(20), ids(1, 17), 17)]))


@pytest.mark.parametrize(
    "settings", [{"beta": -1.0}, {"top_p": 0.0}, {"pooling": "best"}], ids=lambda one: next(iter(one))
)
def test_settings_are_checked_before_anything_is_read(settings):
    with pytest.raises(ConfigError):
        NBCE(None, None, **settings)
