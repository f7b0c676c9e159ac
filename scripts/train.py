"""Train one model: python scripts/train.py scheme=alibi train.length=128 (--multirun scheme=rope,alibi for several)."""

from posbench.config.hydra_app import launch
from posbench.config.schema import ModelSettings, TrainScript
from posbench.runtime.distributed import world
from posbench.sweep.jobs import Places
from posbench.sweep.plan import Plan, plan_model
from posbench.sweep.run import run


def main(script: TrainScript) -> None:
    """Train the model of these settings, unless it is there."""
    model = plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    if run(Plan([model], [], []), script.runtime, "train").left or not world().leads:
        return
    print(f"{model.label}: {Places.of(script.runtime).model(model)}")


if __name__ == "__main__":
    launch("train", main)
