"""Flip-flop language by a loop over instructions."""

import numpy as np
import pytest
from test_tasks import Text

from posbench.data import flip_flop
from posbench.data.vocabulary import Vocabulary
from posbench.errors import ConfigError, LengthError
from posbench.lm.interface import Scores
from posbench.tasks.flip_flop import FlipFlop

VOCABULARY = Vocabulary("bytes", 256)


@pytest.mark.parametrize("ignore", [0.1, 0.8, 0.98])
def test_reads_repeat_the_last_write(ignore):
    rng, instructions = np.random.default_rng(0), []
    for _ in range(100):
        ids, loss_mask = flip_flop.sequence(rng, VOCABULARY, 64, ignore)
        assert ids[0] == VOCABULARY.bos
        symbols = ids[1:] - VOCABULARY.key_ids[0]
        kinds, bits = symbols[::2], symbols[1::2] - 3
        assert (kinds[0], kinds[-1]) == (flip_flop.WRITE, flip_flop.READ)
        stored = None
        for index, (kind, bit) in enumerate(zip(kinds, bits, strict=True)):
            assert bit in (0, 1)
            if kind == flip_flop.WRITE:
                stored = bit
            if kind == flip_flop.READ:
                assert bit == stored
            assert loss_mask[2 * index + 2] == (kind == flip_flop.READ)
            assert not loss_mask[2 * index + 1]
        instructions += kinds[1:-1].tolist()
    shares = np.bincount(instructions, minlength=3) / len(instructions)
    np.testing.assert_allclose(shares, [(1 - ignore) / 2, (1 - ignore) / 2, ignore], atol=0.03)


def test_only_reads_are_scored():
    task = FlipFlop(2, 0.5)
    prompt = next(task.prompts(32, Text(), 32, 0))
    assert prompt.length == prompt.n_scored == 32
    greedy, (reads,) = prompt.continuations.copy(), np.nonzero(prompt.doc["reads"])
    greedy[0, np.setdiff1d(np.arange(32), reads)] = 0  # everything else is wrong
    greedy[0, reads[0]] += 1
    logprob = np.where(prompt.doc["reads"], -0.5, -9.0)[None]
    metrics = {one.metric: one for one in task.process_results(prompt, Scores(logprob, greedy))}
    assert (metrics["symbol_accuracy"].value_sum, metrics["symbol_accuracy"].n) == (
        len(reads) - 1,
        len(reads),
    )
    assert metrics["exact_match"].value_sum == 0
    assert metrics["logprob"].value_sum == -0.5 * len(reads)


def test_bad_settings_and_lengths():
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        FlipFlop(1, 1.5)
    with pytest.raises(LengthError, match="even length of 4 or more"):
        next(FlipFlop(1, 0.8).prompts(33, Text(), 32, 0))
    with pytest.raises(LengthError, match=r"data\.num_keys is 4"):
        flip_flop.check_length(32, 4)
