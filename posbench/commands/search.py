"""Searches the factors of LongRoPE for one model, and writes them as an extension.

Candidates are measured by their loss on a task at one length past the training length: perplexity
(task=fixed_targets, the default) or needles (task=passkey, task=key_value), of the validation split; the best one is
measured on the test split as well. An interrupted search continues.

most used settings:
  scheme=rope train.seq_len=128            the model, by the settings that it was trained with
  task=passkey                             what is measured, by default fixed_targets
  search.length_multiple=8                 searched length, in training lengths
  search.iterations=40 search.population=64   size of the search; the defaults are small
  lm=hugging_face lm.name=NAME             a pretrained model in place of scheme, size and train

examples:
  posbench search scheme=rope train.seq_len=128 task.build.num_examples=8
  posbench search lm=hugging_face lm.name=HuggingFaceTB/SmolLM2-135M task=passkey search.name=needles
  posbench evaluate scheme=rope train.seq_len=128 extension=longrope_searched --config-dir results/search/longrope_searched
"""

from collections.abc import Sequence

from posbench.commands import checks, settings_command
from posbench.config.schema import EvaluationSettings
from posbench.config.search import SearchScript
from posbench.config.validation import check_command
from posbench.errors import ConfigError
from posbench.plan import feasibility


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("search", __doc__, run, arguments)


def run(script: SearchScript) -> None:
    """Searches and prints how the result is used."""
    from posbench.config.hydra_app import given_keys, load_option

    checks.check_lm(script, given_keys())
    check_command(script.runtime, "runtime.", given_keys(), "search")
    checks.check_model(script)
    checks.check_build("task", script.task.build)
    if script.runtime.launcher in ("slurm", "ray"):
        raise ConfigError(
            f"runtime.launcher {script.runtime.launcher}: a search runs in one process here, remove runtime={script.runtime.launcher}"
        )
    settings = script.search
    if settings.parents > settings.population:
        raise ConfigError(
            f"search.parents {settings.parents}: give at most search.population, {settings.population}"
        )
    count = settings.population + settings.iterations * (settings.mutations + settings.crossovers)
    evaluation = EvaluationSettings(length_multiples=[settings.length_multiple])
    flops = feasibility.evaluation_flops(script, script.task.name, script.task.build, evaluation)
    feasibility.check_flops(count * flops, "give fewer search.iterations or examples, or a shorter length")
    from posbench.evaluation.search import run_search

    path = run_search(script, load_option)
    print(f"{path}: posbench evaluate ... extension={settings.name} --config-dir {path.parents[1]}")
