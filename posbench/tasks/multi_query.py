"""Multi-query needles: the values of several keys, in one question.

Hsieh et al. RULER. COLM 2024. arXiv:2404.06654; `niah_multiquery` of NVIDIA/RULER. See `tasks.ruler` for the forms, the
score and deviations.
"""

from __future__ import annotations

from posbench.instantiate import register
from posbench.tasks.multi_value import MagicNumbers


@register("task/multi_query")
class MultiQuery(MagicNumbers):
    """The values of several keys, in one question; RULER's niah_multiquery.

    Metric, for each prompt:
        recall (fraction, 0 to 1): the share of the four values that the generated text contains.
    """

    task = "multi_query"
