"""Train one model: python scripts/train.py scheme=alibi train.seq_len=128 (--multirun scheme=rope,alibi for several)."""

from posbench.config.hydra_app import run_app
from posbench.config.schema import ModelSettings, TrainScript
from posbench.runtime.distributed import world
from posbench.sweep.cell import Plan
from posbench.sweep.jobs import ResultsFolder
from posbench.sweep.plan import plan_model
from posbench.sweep.run import run_plan


def main(script: TrainScript) -> None:
    """Train the model of these settings, unless it is there."""
    model = plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    if run_plan(Plan([model], [], []), script.runtime, "train").n_remaining or not world().is_main_process:
        return
    print(f"{model.label}: {ResultsFolder.from_runtime(script.runtime).model_dir(model)}")


if __name__ == "__main__":
    run_app("train", main)
