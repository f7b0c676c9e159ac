"""Questions with passages, from any file of the Lost in the Middle format: one JSON object a line.

Each has `question`, `answers` and `ctxs`, passages with `title` and `text`, of which one is marked `isgold` or,
where no passage is marked so, `hasanswer`. Liu et al., arXiv:2307.03172; qa_data in nelson-liu/lost-in-the-middle.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posbench.errors import DataError

FORMAT = "give a file of the Lost in the Middle format: question, answers, ctxs with title, text and isgold"
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Passage:
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question, its right answers, the passage that holds one, and passages that come with it and do not."""

    text: str
    answers: list[str]
    gold: Passage
    others: list[Passage]


def normalize_answer(text: str) -> str:
    """As SQuAD's evaluation does: lower case, no punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def best_subspan_em(text: str, answers: list[str]) -> bool:
    """The paper's best-subspan exact match: some answer is a substring, both normalised.

    An answer such as "*", of which normalising leaves nothing, would be a substring of everything and is
    passed over; the paper's metric counts it.
    """
    found = normalize_answer(text)
    return any(one in found for answer in answers if (one := normalize_answer(answer)))


def load_questions(path: Path) -> tuple[list[Question], int]:
    """The questions of a jsonl or jsonl.gz file, and a number that is a function of its bytes.

    Raises:
        DataError: if the file cannot be read or has another shape; the line and field are named.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"questions of {path} cannot be read ({reason}): {FORMAT}") from None
    # Not splitlines: JSON may hold other separators of lines within its strings.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} holds no questions: {FORMAT}")
    questions = [_question(line, f"{path} line {number}") for number, line in lines]
    return questions, int(hashlib.sha256(raw).hexdigest()[:12], 16)


def distractors(questions: list[Question], index: int, count: int, rng: np.random.Generator) -> list[Passage]:
    """`count` passages without an answer to a question: its own first, then gold ones of others at random.

    Raises:
        DataError: if there are not so many.
    """
    asked = questions[index]
    others = (questions[int(other)].gold for other in rng.permutation(len(questions)))

    def candidates() -> Iterator[Passage]:
        yield from asked.others
        yield from others

    found: dict[Passage, None] = {}
    for passage in candidates():
        if len(found) == count:
            break
        if passage != asked.gold and not best_subspan_em(f"{passage.title}\n{passage.text}", asked.answers):
            found[passage] = None
    if len(found) < count:
        raise DataError(
            f"{count} passages beside the gold one of {asked.text!r}: there are {len(found)} without an answer to "
            "it; choose fewer documents or give a file with more"
        )
    return list(found)


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error}): {FORMAT}") from None
    text, answers, passages = (
        _field(row, name, kind, where)
        for name, kind in (("question", str), ("answers", list), ("ctxs", list))
    )
    if not all(isinstance(one, str) for one in answers) or not any(map(normalize_answer, answers)):
        raise DataError(f"{where}: field 'answers' must be one text or more, got {answers!r}: {FORMAT}")
    found, marks = [], []
    for place, passage in enumerate(passages):
        at = f"{where}: ctxs[{place}]"
        found.append(Passage(_field(passage, "title", str, at), _field(passage, "text", str, at)))
        marks.append((passage.get("isgold"), passage.get("hasanswer")))
    gold = next((i for kind in (0, 1) for i, mark in enumerate(marks) if mark[kind] is True), None)
    if gold is None:
        raise DataError(f"{where}: no passage of field 'ctxs' has isgold or hasanswer true: {FORMAT}")
    return Question(text, answers, found[gold], [one for i, one in enumerate(found) if i != gold])


def _field(row: Any, name: str, kind: type, where: str) -> Any:
    """A field of a JSON object, of a type; a text or list that is empty is as good as none."""
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind) or not value:
        named = "a text" if kind is str else "a list"
        given = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise DataError(f"{where}: field {name!r} {given}, and must be {named} that is not empty: {FORMAT}")
    return value
