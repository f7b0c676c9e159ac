"""Multi-value needles: all values of one key, hidden apart from each other.

Hsieh et al. RULER. COLM 2024. arXiv:2404.06654; `niah_multivalue` of NVIDIA/RULER. See `tasks.ruler` for the forms, the
score and deviations.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from posbench.data.corpus import Corpus
from posbench.instantiate import register
from posbench.tasks.ruler import COUNT, RulerTask, Strings, distinct, join, random_number

NUMBERS = "special magic numbers for"
ADJECTIVES = (
    "amber brave calm dusty eager faint gentle humble icy jolly keen loud merry noble odd proud quiet rapid"
)
NOUNS = (
    "apple bridge candle desert engine forest garden harbor island jungle kettle ladder meadow needle orchard"
)


def random_key(rng: np.random.Generator) -> str:
    """Draws two words; the space before them is included because most tokenizers merge it with the first."""
    return f" {rng.choice(ADJECTIVES.split())}-{rng.choice(NOUNS.split())}"


class MagicNumbers(RulerTask):
    """Base of the tasks on magic numbers, each of which belongs to a key."""

    draws = {"keys": random_key, "magic numbers": partial(random_number, digits=7)}

    def texts(self, rng: np.random.Generator, corpus: Corpus, strings: Strings) -> Any:
        _, key = distinct(strings["keys"], rng, COUNT if self.task == "multi_query" else 1)
        answers, value = distinct(strings["magic numbers"], rng, COUNT)
        encoded = partial(join, corpus)
        asked: list[Any] = [key[0]]
        for position in range(1, len(key)):
            asked += [", and" if position + 1 == len(key) else ",", key[position]]
        before = encoded(
            "Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz you "
            "about the numbers afterwards.\n"
        )
        needles = [
            encoded(f"One of the {NUMBERS}", key[position % len(key)], " is:", value[position], ".")
            for position in rng.permutation(COUNT)
        ]
        mentioned = " mentioned in the provided text"
        question = encoded(
            *(
                f"\nWhat are all the {NUMBERS}",
                *asked,
                f"{mentioned}? The {NUMBERS}",
                *asked,
                f"{mentioned} are",
            )
        )
        return before, needles, question, answers


@register("task/multi_value")
class MultiValue(MagicNumbers):
    """All values of one key, hidden apart from each other; RULER's niah_multivalue.

    Metric, for each prompt:
        recall (fraction, 0 to 1): the share of the four values that the generated text contains.
    """

    task = "multi_value"
