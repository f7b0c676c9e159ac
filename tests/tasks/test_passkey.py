"""Passkey retrieval: the paper's prompt character by character, exact lengths, evenly spaced depths."""

import re

import numpy as np
import pytest
from prose import Prose, confident_scores, prose, whole

from posbench.data.tokenizer import Bytes
from posbench.errors import ConfigError, DataError, LengthError
from posbench.tasks.passkey import Passkey

KINDS = ["bytes", "bpe"]
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def prompts(task: Passkey, length: int, corpus: Prose, seed: int = 0):
    return list(task.prompts(length, corpus, 64, seed))


def expected(before: str, number: str, after: str) -> str:
    """The prompt of the authors' run_test.py and the answer."""
    lines = [
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
        "I will quiz you about the important information there.",
        before,
        f"The pass key is {number}. Remember it. {number} is the pass key.",
        after,
        "What is the pass key? The pass key is",
    ]
    return "\n".join(lines) + f" {number}"


def parts(text: str) -> tuple[str, str, str]:
    """The filler before the number, the number, and the filler after it."""
    found = re.fullmatch(
        r"[^\n]*\n(.*)\nThe pass key is (\d+)\. Remember it\. \2 is the pass key\.\n(.*)\nWhat.* \2",
        text,
        re.DOTALL,
    )
    assert found is not None
    return found[1], found[2], found[3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filler", ["sentences", "corpus"])
@pytest.mark.parametrize("length", [600, 777])
def test_prompts_equal_the_papers_and_have_the_exact_length(kind, filler, length):
    corpus = prose(kind)
    made = prompts(Passkey(2, 5, filler=filler), length, corpus)
    assert len(made) == 10
    assert len({prompt.continuations.shape for prompt in made}) == 1
    fillers = set()
    for prompt in made:
        assert prompt.length == length
        # Fault: an ensemble read the question after the last chunk only.
        assert (
            corpus.text(prompt.context[-prompt.question_len :]) == "\nWhat is the pass key? The pass key is"
        )
        before, number, after = parts(corpus.text(whole(prompt)))
        assert corpus.text(whole(prompt)) == expected(before, number, after)
        assert len(number) == 5
        position = prompt.doc["position"]
        assert corpus.text(prompt.context[position:]).startswith(f"\nThe pass key is {number}.")
        sizes = [len(corpus.tokenizer.encode(one)) for one in (before, after)]
        assert prompt.doc["depth"] == pytest.approx(sizes[0] / sum(sizes), abs=0.02)
        if filler == "sentences":
            assert before + ((FILLER + " ") * 99)[len(before) :] == (FILLER + " ") * 99
            assert ((FILLER + " ") * 99).startswith(after)
        fillers.add(before + after)
    assert len(fillers) == 2 or filler == "sentences"
    assert [prompt.doc["depth"] for prompt in made] == [0, 0.25, 0.5, 0.75, 1] * 2


def test_metrics_by_depth():
    task = Passkey(1, 3)
    made = prompts(task, 600, prose())
    measures = [
        one
        for prompt, wrong in zip(made, [(), (0,), ()], strict=True)
        for one in task.process_results(prompt, confident_scores(prompt, wrong))
    ]
    matches = [one for one in measures if one.metric == "exact_match"]
    assert [(one.depth, one.value_sum) for one in matches] == [(0, 1.0), (0.5, 0.0), (1, 1.0)]
    assert len({one.doc_id for one in matches}) == 1  # one text, at three depths
    assert [one.value_sum for one in measures if one.metric == "logprob"] == pytest.approx(
        [-0.6, -30.0, -0.6]
    )
    assert {one.value_sum for one in measures if one.metric == "chance"} == {1 / 90_000}


def test_prompts_depend_on_the_seed_alone():
    one, same, other = (whole(prompts(Passkey(1, 1), 600, prose(), seed)[0]) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_for_a_short_length_names_the_shortest_possible(kind):
    task, corpus = Passkey(1, 2), prose(kind)
    with pytest.raises(LengthError) as caught:
        prompts(task, 20, corpus)
    least = int(re.search(r"choose a length of (\d+) or more", str(caught.value))[1])
    made = prompts(task, least, corpus)
    assert {prompt.length for prompt in made} == {least}
    assert parts(corpus.text(whole(made[0])))[::2] == ("", "")
    with pytest.raises(LengthError, match="passkey at"):
        prompts(task, least - 1, corpus)


def test_more_filler_than_the_corpus_has_is_an_error():
    with pytest.raises(LengthError, match="the test split of prose has"):
        prompts(Passkey(1, 1, filler="corpus"), 100_000, prose())


class Spaceless(Bytes):
    """Drops leading spaces, as some tokenizers do."""

    name = "spaceless"

    def decode(self, ids):
        return super().decode(ids).lstrip()


def test_a_lossy_tokenizer_is_an_error():
    with pytest.raises(DataError, match="pass keys are not exact under tokenizer 'spaceless'"):
        prompts(Passkey(1, 1), 600, Prose(Spaceless()))


def test_invalid_settings():
    with pytest.raises(ConfigError, match="num_depths=0: give at least 1"):
        Passkey(1, 0)
    with pytest.raises(ConfigError, match="did you mean 'sentences'"):
        Passkey(1, 1, filler="sentence")


def test_numbers_have_at_most_eighteen_digits():
    """Fault: 19 digits were a traceback."""
    with pytest.raises(ConfigError, match="num_digits 19: give 1 to 18"):
        Passkey(1, 1, num_digits=19)
