"""Questions with passages, from files in the Lost in the Middle format: one JSON object in each line.

An object has `question`, `answers` and `ctxs`, passages with `title` and `text`. The gold passage is the first one with
`isgold`, or with `hasanswer` if no passage has `isgold`. Liu et al., arXiv:2307.03172; qa_data in
nelson-liu/lost-in-the-middle.
"""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posbench.data import table
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
        others: its other passages in the file that are not marked as having an answer.
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
    questions = [_question(row, place) for place, row in table.json_lines(path, FORMAT)]
    if not questions:
        raise DataError(f"{path} holds no questions: {FORMAT}")
    return questions, int(hashlib.sha256(path.read_bytes()).hexdigest()[:12], 16)


def distractors(questions: list[Question], index: int, count: int, rng: np.random.Generator) -> list[Passage]:
    """Returns `count` distinct passages beside the gold one of a question.

    Its own passages come first, in the order of the file, then gold passages of other questions without an answer to it,
    in random order.

    Raises:
        DataError: if the file has fewer.
    """
    question = questions[index]
    found = dict.fromkeys(one for one in question.others if one != question.gold)  # an ordered set
    for other in rng.permutation(len(questions)):
        if len(found) >= count:
            break
        passage = questions[int(other)].gold
        text = f"{passage.title}\n{passage.text}"
        if passage != question.gold and not best_subspan_em(text, question.answers):
            found[passage] = None
    if len(found) < count:
        raise DataError(
            f"{count} passages beside the gold one of {question.text!r}: there are {len(found)} without an answer to "
            "it; choose fewer documents or give a file with more"
        )
    return list(found)[:count]


def _question(row: Any, where: str) -> Question:
    """Converts the value of one line; `where` names it in errors."""
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
    marked = [any(one.get(mark) is True for mark in marks) for one in passages]
    others = [one for one, has_answer in zip(parsed, marked, strict=True) if not has_answer]
    return Question(text, answers, parsed[gold], others)


def _field(row: Any, name: str, kind: type, where: str) -> Any:
    """Returns a field of a JSON object; raises DataError unless it is a non-empty value of the type `kind`."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind) or not value:
        expected = "text" if kind is str else "list"
        given = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise DataError(f"{where}: field {name!r} {given}, and must be a non-empty {expected}: {FORMAT}")
    return value
