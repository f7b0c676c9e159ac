"""Requests of lm-evaluation-harness as prompts of token ids, and scores as its responses.

Every prompt begins with the bos of the corpus, as documents do in training. A context that is longer than the length
loses its first tokens behind the bos; lm-eval's own models lose the bos as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posbench.data.corpus import Corpus
from posbench.errors import IncompatibleError, LengthError
from posbench.lm.interface import Generated, Prompt, Scores
from posbench.tasks.prompting import decode_until_special, encode_text

MAX_NEW_TOKENS = 256  # of lm-eval, for tasks that state no number
# Type of a request in lm-eval -> method of `LM`.
METHODS = {
    "loglikelihood": "loglikelihood",
    "loglikelihood_rolling": "loglikelihood",
    "generate_until": "generate",
}


def prompts_of(request: Any, corpus: Corpus, length: int) -> list[Prompt]:
    """Returns the prompts of an lm-eval Instance: one, or for a rolling log-likelihood one for each window.

    Raises:
        LengthError: if the scored or generated tokens alone are longer than the length.
        IncompatibleError: if answers are to be sampled.
    """
    if request.request_type == "loglikelihood":
        context, continuation = request.args[:2]
        return [scored(*encode_pair(corpus, context, continuation), corpus, length)]
    if request.request_type == "loglikelihood_rolling":
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        ids = encode_text(corpus, request.args[0]).tolist()
        windows = get_rolling_token_windows(ids, corpus.vocabulary.bos, length, 1)
        return [window(*make_disjoint_window(pair)) for pair in windows]
    from lm_eval.models.utils import normalize_gen_kwargs

    context, options = request.args[0], normalize_gen_kwargs(request.args[1], MAX_NEW_TOKENS)
    if options["do_sample"]:
        raise IncompatibleError(
            "this task of lm-eval samples its answers, and models are decoded greedily: choose a task without do_sample"
        )
    count = options["max_gen_toks"]
    if count >= length:
        raise LengthError(f"lm_eval at {length} tokens: this task generates {count}; choose a longer length")
    ids_C = last(encode_text(corpus, context), length - count + 1, corpus)
    empty = np.zeros((1, 0), np.int64)
    return [Prompt(ids_C, empty, 0, max_new_tokens=count)]


def encode_pair(corpus: Corpus, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of a context and of its continuation, with spaces between them as part of the latter."""
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    head, whole = encode_text(corpus, stripped), encode_text(corpus, stripped + continuation)
    return head, whole[len(head) :]


def scored(head_C: np.ndarray, continuation_S: np.ndarray, corpus: Corpus, length: int) -> Prompt:
    """Returns the prompt that scores a continuation."""
    if not len(continuation_S):
        raise LengthError(
            "lm_eval: a continuation of this task encodes to no token after its context: choose another task or tokenizer"
        )
    room = length + 1 - len(continuation_S)
    if room < 1:
        raise LengthError(
            f"lm_eval at {length} tokens: an answer of this task has {len(continuation_S)}; choose a longer length"
        )
    return window(last(head_C, room, corpus), continuation_S)


def window(context: Any, continuation: Any) -> Prompt:
    """Returns the prompt that scores all ids of a continuation."""
    return Prompt(np.asarray(context, np.int64), np.asarray(continuation, np.int64)[None], len(continuation))


def last(ids_C: np.ndarray, room: int, corpus: Corpus) -> np.ndarray:
    """Returns the bos and the last ids that fit behind it into `room` tokens."""
    return np.concatenate([[corpus.vocabulary.bos], ids_C[max(0, len(ids_C) - room + 1) :]]).astype(np.int64)


def response_of(request: Any, prompts: list[Prompt], answers: list[Any], corpus: Corpus) -> Any:
    """Returns the response to a request that lm-eval expects, from the answers to its prompts."""
    if request.request_type == "generate_until":
        answer: Generated = answers[0]
        return until(decode_until_special(corpus, answer.ids[0]), request.args[1].get("until"))
    scores: list[Scores] = answers
    total = float(sum(one.logprob.sum() for one in scores))
    if request.request_type == "loglikelihood_rolling":
        return total
    return total, bool((scores[0].greedy_ids == prompts[0].continuations).all())


def until(text: str, stops: Any) -> str:
    """Returns a text up to the first of several strings."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.split(stop, maxsplit=1)[0]
    return text
