"""Variable tracking: all variables that have a value through a chain of assignments.

Hsieh et al. RULER. COLM 2024. arXiv:2404.06654; `vt` of NVIDIA/RULER. See `tasks.ruler` for the forms, the score and
deviations. Deviation: no worked example before the text.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from posbench.data.corpus import Corpus
from posbench.instantiate import register
from posbench.tasks.ruler import COUNT, RulerTask, Strings, distinct, join, random_number


def random_variable(rng: np.random.Generator) -> str:
    """Draws five capital letters."""
    return " " + "".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 5))


@register("task/variable_tracking")
class VariableTracking(RulerTask):
    """All variables that have a value through a chain of assignments; RULER's vt, one chain of four hops.

    Metric, for each prompt:
        recall (fraction, 0 to 1): the share of the five variables that the generated text contains.
    """

    task = "variable_tracking"
    words_settings: ClassVar[dict[str, Any]] = {"filler": "sentences", "max_new_tokens": 30}

    draws = {"variables": random_variable, "values": partial(random_number, digits=5)}

    def texts(self, rng: np.random.Generator, corpus: Corpus, strings: Strings) -> Any:
        variables, name = distinct(strings["variables"], rng, COUNT + 1)
        _, (value,) = strings["values"].sample(rng, 1)
        encoded = partial(join, corpus)
        before = encoded(
            "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
        )
        needles = [encoded("VAR", name[0], " =", value)]
        needles += [encoded("VAR", name[hop], " = VAR", name[hop - 1]) for hop in range(1, COUNT + 1)]
        question = encoded(
            "\nQuestion: Find all variables that are assigned the value",
            value,
            " in the text above. Answer: According to the chain(s) of variable assignment in the text above, "
            f"{COUNT + 1} variables are assigned the value",
            value,
            ", they are: ",
        )
        return before, needles, question, variables
