"""RULER's tasks: needles and answers parsed from prompts, and the score of NVIDIA/RULER on given texts."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_tasks import Text

from posbench.data import ruler, synthetic
from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.tokenizer import Bytes, Tokenizer
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Generated
from posbench.tasks.multi_query import MultiQuery
from posbench.tasks.multi_value import MultiValue
from posbench.tasks.passkey import FILLERS
from posbench.tasks.ruler import RulerTask
from posbench.tasks.variable_tracking import VariableTracking

TASKS = {task.task: task for task in (MultiValue, MultiQuery, VariableTracking)}
VOCABULARY = Vocabulary("bytes", 256)
MARK = VOCABULARY.value_ids[0]


@dataclass
class Digits(Text):
    """Running text of digits, under a tokenizer of bytes."""

    vocabulary: Vocabulary = VOCABULARY
    tokenizer: Tokenizer = field(default_factory=Bytes)

    def split(self, name: str) -> Shard:
        tokens = np.resize(np.frombuffer(b"0123456789 ", np.uint8), 4000).astype(np.int64)
        return Shard(name, tokens, np.array([0, 4000]), ["digits"])


def follow(kind: str, prompt: np.ndarray) -> list[int]:
    """The answers to a prompt of symbols, found by reading it."""
    (mark,) = np.nonzero(prompt == MARK)
    context, question = prompt[: mark[0]], prompt[mark[0] + 1 :].tolist()
    needles = context[context > VOCABULARY.bos].reshape(-1, 2).tolist()
    if kind == "variable_tracking":
        found, holds = [], set(question)
        for variable, assigned in needles:
            if assigned in holds:
                holds.add(variable)
                found.append(variable)
        return found
    return [value for asked in question for key, value in needles if key == asked]


@pytest.mark.parametrize("kind", ruler.KINDS)
def test_symbols_have_the_answers_of_their_question(kind):
    rng = np.random.default_rng(0)
    for length in (ruler.min_length(kind), 64, 200):
        for _ in range(20):
            *parts, answers = ruler.example(rng, VOCABULARY, kind, length, np.full(length, 7))
            prompt = np.concatenate(parts)
            assert len(prompt) + len(answers) == length + 1
            assert follow(kind, prompt) == answers.tolist()
            assert (prompt == 7).sum() == length - ruler.min_length(kind)
            assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("kind", ruler.KINDS)
def test_training_and_evaluation_have_one_form(kind):
    shard = Digits().split("train")
    batch = Batches(shard, VOCABULARY, 64, 4, 1.0, 0.0, 0, kind).get_batch(0)
    for ids, loss_mask in zip(batch.ids, batch.loss_mask, strict=True):
        assert follow(kind, ids[:-1][: -loss_mask.sum() + 1]) == ids[1:][loss_mask].tolist()
    task = TASKS[kind](3, "symbols", **TASKS[kind].words_settings)
    assert task.required_synthetic_task == kind
    for prompt in task.prompts(64, Digits(), 64, 0):
        assert prompt.length == 64
        assert prompt.context[-prompt.question_len] == MARK
        read = np.concatenate([prompt.context, prompt.continuations[0]])
        answers = follow(kind, read)
        assert prompt.max_new_tokens == len(answers)
        for ids, recall in ((answers[::-1], len(answers)), ([*answers[1:], 3], len(answers) - 1)):
            (measure,) = task.process_results(prompt, Generated(np.array([ids])))
            assert (measure.metric, measure.value_sum, measure.n) == ("recall", recall, len(answers))


def references(kind: str, text: str) -> set[str]:
    """The answers to a prompt of words, found by reading it."""
    if kind == "variable_tracking":
        holds = {re.search(r"assigned the value (\d+)", text)[1]}
        for variable, assigned in re.findall(r"\nVAR (\w+) = (?:VAR )?(\w+)\n", text):
            if assigned in holds:
                holds.add(variable)
        return {one for one in holds if one.isalpha()}
    asked = re.search(r"What are all the special magic numbers for (.*?) mentioned in", text)[1]
    pairs = re.findall(r"\nOne of the special magic numbers for ([\w-]+) is: (\d{7})\.\n", text)
    assert len(pairs) == 4
    return {value for key, value in pairs if key in re.split(", and |, ", asked)}


@pytest.mark.parametrize("kind", ruler.KINDS)
@pytest.mark.parametrize("filler", FILLERS)
def test_words_have_exact_lengths_and_the_answers_of_their_question(kind, filler):
    task = TASKS[kind](4, "words", filler, 30)
    assert (task.required_synthetic_task, task.variant) == ("", f"words-{filler}")
    for prompt in task.prompts(1200, Digits(), 64, 0):
        assert prompt.length == 1200
        text = Digits().tokenizer.decode(np.concatenate([prompt.context[1:], prompt.continuations[0]]))
        question = Digits().tokenizer.decode(prompt.context[-prompt.question_len :])
        assert re.fullmatch(
            r"\s*(What are all the special magic|Question: Find all variables).*", question, re.DOTALL
        )
        answers = {answer.strip() for answer in prompt.doc["answers"]}
        assert references(kind, text) == answers
        assert len(answers) == (5 if kind == "variable_tracking" else 4)


def test_the_score_is_the_share_of_references_in_the_text():
    """string_match_all of RULER: without regard to case, and whatever else the text has."""
    task = VariableTracking(1, "words", "sentences", 30)
    prompt = next(task.prompts(1200, Digits(), 64, 0))
    names = [answer.strip() for answer in prompt.doc["answers"]]
    for text, found in ((f"are {names[0].lower()}, XX{names[3]}", 2), ("none", 0), (" ".join(names), 5)):
        ids = Digits().tokenizer.encode(text)[None]
        (measure,) = task.process_results(prompt, Generated(ids))
        assert (measure.value_sum, measure.n) == (found, 5)


def test_bad_settings_and_lengths():
    with pytest.raises(ConfigError, match="symbols, words"):
        MultiValue(1, "letters", "corpus", 30)
    with pytest.raises(ConfigError, match="corpus, sentences"):
        MultiValue(1, "words", "essay", 30)
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        MultiQuery(1, "words", "corpus", 0)
    # Fault: settings of the words were accepted for symbols, where they change nothing.
    for given, name in ((("sentences", 128), "filler=sentences"), (("corpus", 30), "max_new_tokens=30")):
        with pytest.raises(ConfigError, match=f"form=symbols: {name} changes nothing: remove it"):
            MultiValue(1, "symbols", *given)
    with pytest.raises(LengthError, match="multi_query in 10 tokens"):
        next(MultiQuery(1, "symbols", "corpus", 128).prompts(10, Digits(), 64, 0))
    with pytest.raises(LengthError, match=r"variable_tracking at 64 tokens.*choose a length of \d+ or more"):
        next(VariableTracking(1, "words", "corpus", 30).prompts(64, Digits(), 64, 0))
    with pytest.raises(LengthError, match="needs 1 keys and 5 values"):
        synthetic.check_synthetic_task("multi_value", 64, 88, 4, 0.0)
    assert issubclass(MultiValue, RulerTask)


@pytest.mark.parametrize("kind", ruler.KINDS)
def test_the_settings_that_symbols_allow_are_those_of_the_yaml(kind):
    path = Path(__file__).parents[2] / "configs" / "task" / f"{kind}.yaml"
    build = yaml.safe_load(path.read_text())["build"]
    assert TASKS[kind].words_settings == {name: build[name] for name in ("filler", "max_new_tokens")}
