"""Train one model: python scripts/train.py scheme=alibi train.length=128 (--multirun scheme=rope,alibi for several)."""

from posbench.config import launch
from posbench.parallel import world
from posbench.plan import Plan, plan_model
from posbench.settings import ModelSettings, TrainScript
from posbench.sweep import run
from posbench.work import Places


def main(script: TrainScript) -> None:
    """Train the model of these settings, unless it is there."""
    model = plan_model(ModelSettings(script.scheme, script.size, script.data, script.train))
    if run(Plan([model], [], []), script.runtime, "train").left or not world().leads:
        return
    print(f"{model.label}: {Places.of(script.runtime).model(model)}")


if __name__ == "__main__":
    launch("train", main)
