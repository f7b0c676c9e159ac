"""Questions with passages, from files in the Lost in the Middle format: one JSON object in each line.

An object has `question`, `answers` and `ctxs`, passages with `title` and `text`. The gold passage is the first one with
`isgold`, or with `hasanswer` if no passage has `isgold`. Liu et al., arXiv:2307.03172; qa_data in
nelson-liu/lost-in-the-middle.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import string
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from posbench.errors import DataError

FORMAT = "give a file in the Lost in the Middle format: question, answers, ctxs with title, text and isgold"
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Passage:
    """A document of the prompt: its title and text."""

    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question of a file.

    Attributes:
        text: the question.
        answers: accepted answers.
        gold: passage with an answer.
        others: its other passages in the file; some may contain an answer too.
    """

    text: str
    answers: list[str]
    gold: Passage
    others: list[Passage]


def normalize_answer(text: str) -> str:
    """Normalizes as SQuAD's evaluation does: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def best_subspan_em(text: str, answers: list[str]) -> bool:
    """Whether `text` contains any of the answers, all normalized: the paper's best-subspan exact match.

    Deviation: answers that normalization leaves empty, such as "*", are ignored; the paper counts them as contained in
    every text.
    """
    normalized = normalize_answer(text)
    return any(one in normalized for answer in answers if (one := normalize_answer(answer)))


def load_questions(path: Path) -> tuple[list[Question], int]:
    """Loads a jsonl or jsonl.gz file; returns its questions and an integer hash of its bytes.

    Raises:
        DataError: if the file cannot be read or has another format; the message names the line and the field.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} cannot be read (it is not a file): {FORMAT}")
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read ({reason}): {FORMAT}") from None
    # Not splitlines, which also splits at line separators that JSON allows inside strings.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} holds no questions: {FORMAT}")
    questions = [_question(line, f"{path} line {number}") for number, line in lines]
    return questions, int(hashlib.sha256(raw).hexdigest()[:12], 16)


def distractors(questions: list[Question], index: int, count: int, rng: np.random.Generator) -> list[Passage]:
    """Returns `count` distinct passages without an answer to a question.

    Its own passages come first, in the order of the file, then gold passages of other questions in random order.

    Raises:
        DataError: if the file has fewer.
    """
    question = questions[index]
    other_gold = (questions[int(other)].gold for other in rng.permutation(len(questions)))
    found: dict[Passage, None] = {}  # an ordered set
    for passage in chain(question.others, other_gold):
        if len(found) == count:
            break
        text = f"{passage.title}\n{passage.text}"
        if passage != question.gold and not best_subspan_em(text, question.answers):
            found[passage] = None
    if len(found) < count:
        raise DataError(
            f"{count} passages beside the gold one of {question.text!r}: there are {len(found)} without an answer to "
            "it; choose fewer documents or give a file with more"
        )
    return list(found)


def _question(line: str, where: str) -> Question:
    """Parses one line; `where` names it in errors."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.start + 1]
        raise DataError(
            f"{where} has half of a surrogate pair ({half!a}), which is no text: {FORMAT}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error}): {FORMAT}") from None
    text, answers, passages = (
        _field(row, name, kind, where)
        for name, kind in (("question", str), ("answers", list), ("ctxs", list))
    )
    if not all(isinstance(one, str) for one in answers) or not any(map(normalize_answer, answers)):
        raise DataError(f"{where}: field 'answers' must hold at least one text, got {answers!r}: {FORMAT}")
    parsed = []
    for index, passage in enumerate(passages):
        at = f"{where}: ctxs[{index}]"
        parsed.append(Passage(_field(passage, "title", str, at), _field(passage, "text", str, at)))
    marks = ("isgold", "hasanswer")
    gold = next((i for mark in marks for i, one in enumerate(passages) if one.get(mark) is True), None)
    if gold is None:
        raise DataError(f"{where}: no passage of field 'ctxs' has isgold or hasanswer true: {FORMAT}")
    return Question(text, answers, parsed[gold], parsed[:gold] + parsed[gold + 1 :])


def _field(row: Any, name: str, kind: type, where: str) -> Any:
    """Returns a field of a JSON object; raises DataError unless it is a non-empty value of the type `kind`."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind) or not value:
        expected = "text" if kind is str else "list"
        given = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise DataError(f"{where}: field {name!r} {given}, and must be a non-empty {expected}: {FORMAT}")
    return value
