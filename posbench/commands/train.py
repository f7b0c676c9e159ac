"""Trains one model and saves it under results/models; a model that is there already is not trained again.

Settings name the model: the same settings always give the same folder, and `posbench evaluate` finds the model by
them. An interrupted training continues from its last checkpoint.

most used settings:
  scheme=alibi           position scheme, by default rope (posbench list schemes)
  size=small             tiny, small, base or medium (posbench list sizes)
  train.seq_len=128      training length in tokens
  train.steps=1000       optimizer steps
  data=wikitext103       text to train on (posbench list data)

examples:
  posbench train scheme=alibi train.seq_len=128 train.seed=1
  posbench train --multirun scheme=rope,alibi train.steps=50
  posbench train scheme=rope scheme.build.rope_theta=500000
  torchrun --standalone --nproc-per-node 8 -m posbench train size=base train.seq_len=1024 train.batch_size=512
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from posbench import checksums
from posbench.commands import checks, settings_command
from posbench.config.schema import ModelSettings, TrainScript


def main(arguments: Sequence[str]) -> int:
    return settings_command.main("train", __doc__, run, arguments)


def run(script: TrainScript) -> None:
    """Trains the model of these settings unless it is there."""
    from posbench.config.hydra_app import given_keys

    train(script, given_keys())


def train(script: TrainScript, given: Collection[str] = ()) -> Path:
    """Trains the model of these settings unless it is there, prints a line about it, and returns its folder.

    Args:
        given: keys on the command line, of which none may be without an effect.
    """
    checks.check_train(script, given)
    from posbench.data.corpus import check_corpus, open_corpus
    from posbench.evaluation.results_folder import ResultsFolder
    from posbench.plan.cell import ModelPlan, Plan
    from posbench.plan.plan import plan_model
    from posbench.runtime.distributed import world
    from posbench.sweep.run import check_runtime, run_plan

    check_runtime(script.runtime)  # before a corpus is built
    settings = ModelSettings(script.scheme, script.size, script.data, script.train)
    results_folder = ResultsFolder.from_runtime(script.runtime)

    def planned() -> ModelPlan:
        model = plan_model(settings)
        if not results_folder.has_model(model.id):  # a text that cannot be read is reported before the plan
            check_corpus(open_corpus(settings.data, Path(script.runtime.cache_dir)), settings.train.seq_len)
        return model

    model = world().from_main(planned)
    folder = results_folder.model_dir(model.id)
    if run_plan(Plan([model], [], []), script.runtime, "train").n_remaining or not world().is_main_process:
        return folder
    metadata = checksums.read_json(folder / "final" / "metadata.json")
    if metadata["status"] == "diverged":
        print(f"{model.label}: {folder}; diverged after {metadata['step']} steps")
        return folder
    loss = f", validation loss {metadata['log_history'][-1]['validation_loss']:.3f} nats"
    print(f"{model.label}: {folder}{loss}; posbench evaluate with the same settings measures it")
    return folder
