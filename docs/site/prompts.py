"""Writes the page of tasks: what each measures and one of its prompts, both from the code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from posbench.commands.catalog import Choice, choice, names
from posbench.commands.describe import address
from posbench.config.data import DataSettings
from posbench.config.schema import EvaluationSettings
from posbench.data.corpus import Corpus, open_corpus
from posbench.lm.interface import Prompt
from posbench.plan.plan import build_task

SOURCES = Path(__file__).parents[2] / "posbench" / "position"  # the text: Python code, as in the demo
TRAIN_LEN, LENGTH = 64, 160
# Other lengths, in tokens, where a task's own words need more.
LENGTHS = {"passkey": 420, "position_resolution": 48, "key_value": 48, "attention": 48, "mqar": 48}
LENGTHS |= {"multi_value": 96, "multi_query": 96, "variable_tracking": 96, "flip_flop": 48, "algorithmic": 26}
SETTINGS: dict[str, dict[str, Any]] = {
    "key_value_uuid": {"num_keys": [3]},
    "multi_document": {"num_documents": [2], "num_positions": 2, "num_examples": 1, "max_new_tokens": 8},
    "length_generalization": {"ranges": [[6, 8]]},
    "sliding": {"stride": 32},
}
QUESTION = {
    "question": "Who built the mill?",
    "answers": ["Ada"],
    "ctxs": [
        {"title": "The mill", "text": "Ada built the mill in spring.", "isgold": True},
        {"title": "The harbour", "text": "The harbour is older than the town.", "isgold": False},
    ],
}
HEAD = """# Tasks by example

These examples are generated when the pages are built. Each shows the first prompt of a task, with bytes as tokens and
short settings, and the docstring of its class, which says what the task measures. `⟨bos⟩`, `⟨key 3⟩` and `⟨value 1⟩` are reserved
ids. `▶` marks the first token that the task scores or the model generates. [Tasks and experiments](../tasks.md) says how to choose between tasks.

"""


def write(folder: Path) -> None:
    """Writes prompts.md."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus = example_corpus(Path(scratch))
        questions = Path(scratch) / "questions.jsonl"
        questions.write_text(json.dumps(QUESTION) + "\n")
        SETTINGS["multi_document"]["path"] = str(questions)
        entries = [entry(choice("task", name), corpus) for name in names("task")]
    (folder / "prompts.md").write_text(HEAD + "".join(entries))


def example_corpus(folder: Path) -> Corpus:
    """Makes a small corpus of bytes."""
    texts = [path.read_text() for path in sorted(SOURCES.glob("*.py"))]
    lines = [json.dumps({"text": text}) for text in texts if len(text) > 1000]
    paths = {}
    for split, part in {"train": lines[:1], "validation": lines[1:2], "test": lines[2:]}.items():
        paths[split] = str(folder / f"{split}.jsonl")
        Path(paths[split]).write_text("\n".join(part))
    return open_corpus(DataSettings("files", "files", paths=paths), folder / "cache", lambda line: None)


def entry(one: Choice, corpus: Corpus) -> str:
    """Returns the section of a task."""
    assert one.definition is not None
    paper = f" [{one.paper.removeprefix('https://')}]({address(one.paper)})" if one.paper else ""
    text = f"## {one.name}\n\n{one.summary}{paper}\n\n"
    doc = f"```text\n{one.definition.doc}\n```\n\n" if one.definition.doc else ""
    if one.name == "lm_eval":
        return f"{text}Its prompts are those of the task of lm-eval that `task.name` names.\n\n{doc}"
    prompt = first_prompt(one, corpus)
    what = (
        "One of its prompts"
        if len(prompt.continuations) == 1
        else "A prompt, with the first of its questions"
    )
    text += f"{what}, {prompt.length} tokens:\n\n```text\n{shown(prompt, corpus)}\n```\n\n"
    return text + doc


def first_prompt(one: Choice, corpus: Corpus) -> Prompt:
    """Returns the first prompt of a task."""
    length = LENGTHS.get(one.name, LENGTH)
    build = {**one.content["build"], **SETTINGS.get(one.name, {})}
    content = {**one.content, "build": build}
    _, task = build_task(one.name, EvaluationSettings(), lambda group, name: content, length)
    lengths = task.fixed_lengths(corpus)
    return next(iter(task.prompts(lengths[0] if lengths else length, corpus, TRAIN_LEN, 0)))


def shown(prompt: Prompt, corpus: Corpus) -> str:
    """Returns the text of a prompt and of its first continuation, with a mark before the scored ids."""
    first = prompt.continuations[0]
    scored = len(first) - prompt.n_scored
    read, answer = np.concatenate([prompt.context, first[:scored]]), first[scored:]
    return f"{text_of(read, corpus)}▶{text_of(answer, corpus)}"


def text_of(ids: np.ndarray, corpus: Corpus) -> str:
    """Returns the text of ids, with names in place of reserved ones."""
    vocabulary = corpus.vocabulary
    named = {vocabulary.bos: "⟨bos⟩"}
    for kind, reserved in (("key", vocabulary.key_ids), ("value", vocabulary.value_ids)):
        named |= {int(index): f"⟨{kind} {number}⟩" for number, index in enumerate(reserved)}
    parts: list[str] = []
    run: list[int] = []
    for index in [*map(int, ids), -1]:
        if index in named or index < 0:
            parts += (
                [corpus.tokenizer.decode(np.array(run)), named.get(index, "")]
                if run
                else [named.get(index, "")]
            )
            run = []
        else:
            run.append(index)
    return "".join(parts)
