"""Settings of posbench search, which searches the factors of LongRoPE."""

from __future__ import annotations

from dataclasses import dataclass, field

from posbench.config.lm import LMSettings
from posbench.config.schema import ModelSettings, RuntimeSettings, Script, TaskSettings
from posbench.config.setting import MAX_SEED, setting


@dataclass
class SearchSettings:
    """The evolutionary search; the paper's has 64, 32, 16, 16 and 40 in place of the five counts."""

    name: str = setting("longrope_searched", is_name=True)  # of the extension that is written
    length_multiple: float = setting(4.0, above=1, most=10_000)  # searched length, in training lengths
    population: int = setting(16, least=3, most=10_000)  # candidates of the first iteration
    parents: int = setting(8, least=2, most=10_000)  # best candidates that are kept, at most population
    mutations: int = setting(8, least=0, most=10_000)  # new candidates of an iteration from one parent
    crossovers: int = setting(8, least=0, most=10_000)  # new candidates of an iteration from two parents
    iterations: int = setting(8, least=0, most=10_000)
    mutation_rate: float = setting(0.3, above=0, most=1)  # share of the factors that a mutation draws anew
    seed: int = setting(0, least=0, most=MAX_SEED)  # of the search and of the prompts


@dataclass
class SearchScript(ModelSettings, Script):
    """Settings of posbench search: one model, one task, one search."""

    lm: LMSettings = field(default_factory=LMSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
