"""Copy and reverse: form of training sequences and prompts, metrics, and which models are evaluated."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.config.schema import (
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    SchemeSettings,
    TrainSettings,
)
from posbench.data import algorithmic
from posbench.data.batches import Batches
from posbench.data.shard import Shard
from posbench.data.synthetic import check_synthetic_task
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError, TaskMismatchError
from posbench.lm.interface import Scores
from posbench.plan.grid import NONE
from posbench.plan.plan import plan_cells, plan_model
from posbench.tasks.algorithmic import Algorithmic

VOCABULARY = Vocabulary("bytes", 256)
RULES = {"copy": lambda symbols: symbols, "reverse": lambda symbols: symbols[::-1]}


def parsed(ids, rule):
    """(symbols, ids after the answer) of a sequence; asserts its form symbol by symbol."""
    separator, end = VOCABULARY.value_ids[:2]
    assert ids[0] == VOCABULARY.bos
    count = int(np.flatnonzero(ids == separator)[0]) - 1
    symbols, answer = ids[1 : count + 1], ids[count + 2 : 2 * count + 2]
    assert set(symbols) <= set(VOCABULARY.key_ids[: algorithmic.SYMBOLS])
    assert list(answer) == list(RULES[rule](symbols))
    assert ids[2 * count + 2] == end
    return symbols, ids[2 * count + 2 :]


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_of_training_sequences_covers_the_answer_alone(rule):
    shard = Shard("train", np.arange(500) % 200, np.array([0, 500]), ["text"])
    batch = Batches(shard, VOCABULARY, 40, 64, 1.0, 0.25, 0, rule).get_batch(3)
    counts = []
    for ids, loss_mask in zip(batch.ids, batch.loss_mask, strict=True):
        symbols, rest = parsed(ids, rule)
        assert set(rest) == {VOCABULARY.value_ids[1]}
        # Targets are the ids shifted by one; the answer and its end follow the separator.
        expected = [False] * (len(symbols) + 1) + [True] * (len(symbols) + 1)
        assert list(loss_mask) == expected + [False] * (40 - len(expected))
        counts.append(len(symbols))
    assert max(counts) == algorithmic.num_symbols(40) == 19
    assert min(counts) < 5
    assert 64 / 4 / 2 < counts.count(19) < 64 / 2  # a quarter have the evaluated form


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [4, 40, 60, 120])
def test_prompts_have_the_exact_length_and_end_with_the_answer(rule, length):
    task = Algorithmic(rule, 8)
    made = list(task.prompts(length, Text(), 40, 0))
    assert len(made) == 8
    for prompt in made:
        assert prompt.length == length
        ids = np.concatenate([prompt.context, prompt.continuations[0]])
        assert prompt.n_scored == (length - 2) // 2 + 1 == prompt.continuations.shape[1]
        assert len(ids) == length + 1
        assert list(ids[-prompt.n_scored : -1]) == list(RULES[rule](ids[1 : prompt.n_scored]))


def test_an_exact_match_includes_the_end_token():
    task = Algorithmic("copy", 1)
    (prompt,) = task.prompts(40, Text(), 40, 0)

    def metrics(wrong):
        greedy = prompt.continuations.copy()
        greedy[0, wrong] += 1
        measures = {
            one.metric: one for one in task.process_results(prompt, Scores(np.full((1, 20), -0.5), greedy))
        }
        assert measures["logprob"].value_sum == -9.5
        return (
            measures["exact_match"].value_sum,
            measures["symbol_accuracy"].value_sum,
            measures["symbol_accuracy"].n,
        )

    assert metrics([]) == (1, 19, 19)
    assert metrics([4]) == (0, 18, 19)
    assert metrics([19]) == (0, 19, 19)  # only the end token is wrong


def test_invalid_lengths_and_settings():
    with pytest.raises(LengthError, match="even length"):
        next(Algorithmic("copy", 1).prompts(41, Text(), 40, 0))
    with pytest.raises(ConfigError, match="copy, reverse"):
        Algorithmic("shuffle", 1)
    with pytest.raises(ConfigError, match=r"train\.synthetic_task"):
        check_synthetic_task("shuffle", 40, 88, 16, 0.1)
    with pytest.raises(LengthError, match="even length"):
        check_synthetic_task("reverse", 41, 88, 16, 0.0)


def test_only_models_trained_on_a_rule_are_evaluated_on_it():
    rope = SchemeSettings("rope", {"_target_": "posbench.schemes.rope.RoPE"})
    train = TrainSettings(seq_len=40, synthetic_fraction=1.0, synthetic_task="copy")
    model = plan_model(ModelSettings(rope, data=DataSettings(), train=train))
    build = {"_target_": "posbench.tasks.algorithmic.Algorithmic", "num_examples": 2}

    def cells(rule):
        evaluation = EvaluationSettings(length_multiples=[1, 2], settings={"rule": rule})
        given = {"name": "algorithmic", "build": build}
        return list(plan_cells(model, NONE, "algorithmic", evaluation, lambda group, name: given, Text()))

    assert [cell.length for cell in cells("copy")] == [40, 80]
    with pytest.raises(
        TaskMismatchError, match=r"needs a model of train\.synthetic_task=reverse.*trained on copy"
    ):
        cells("reverse")
