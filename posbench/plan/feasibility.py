"""Estimates of memory and work from settings alone: what this machine could never do is refused before it starts.

The estimates are lower bounds and the limits are generous, several times the memory of the machine and ten years of
its peak speed, so that nothing possible is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posbench.config.lengths import tokens_at
from posbench.config.schema import EvaluationSettings, ModelSettings, RuntimeSettings, TrainSettings
from posbench.errors import ConfigError
from posbench.plan.cost import COUNTS, evaluation_cost, n_parameters, n_prompts, training_cost
from posbench.runtime.torchrun import world_size

# Upper bounds of a core's and a GPU's floating-point operations per second, and of a GPU's bytes.
CORE_SPEED, GPU_SPEED, GPU_BYTES = 1e11, 2e15, 2e11
MEMORY_MARGIN = 4
YEAR = 365.25 * 24 * 3600
MAX_YEARS = 10
RAY_GPUS = 1000  # of a cluster, whose size is unknown here
_of_cluster = 0
# Bytes of a trained parameter: weight, gradient and two moments in float32.
PARAMETER_BYTES = 16
# Bytes of a token that training keeps for each layer and unit of the width, at the least.
ACTIVATION_BYTES = 32
# Bytes of a prompt, all of which are in memory at once, besides the ids of its tokens.
PROMPT_BYTES = 1000
# Prompts of an evaluation, which are all generated before it starts.
MAX_PROMPTS = 10**7
ID_BYTES = 8


def n_machines() -> int:
    """Returns the number of processes of torchrun, an upper bound of the number of machines."""
    return world_size()


def n_gpus() -> int:
    """Returns the number of NVIDIA GPUs of this machine, without torch, or that of the workers of a cluster."""
    return max(_of_cluster, len(list(Path("/dev").glob("nvidia[0-9]*"))))


def use_machines_of(runtime: RuntimeSettings) -> None:
    """Makes the limits of this process those of the machines on which the workers will run."""
    global _of_cluster  # noqa: PLW0603
    widths = {"slurm": runtime.slurm.workers * max(1, runtime.slurm.gpus), "ray": RAY_GPUS}
    _of_cluster = widths.get(runtime.launcher, 0)


def cpu_bytes() -> int:
    """Returns the main memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine_bytes() -> float:
    """Returns the memory of this machine, or that of its GPUs if it is larger."""
    return max(cpu_bytes(), GPU_BYTES * n_gpus()) * n_machines()


def check_bytes(what: str, needed: float, remedy: str) -> None:
    """Raises ConfigError if `needed` bytes are far more than this machine has."""
    if needed > MEMORY_MARGIN * machine_bytes():
        raise ConfigError(
            f"{what} needs at least {needed / 1e9:.3g} GB of memory and this machine has {machine_bytes() / 1e9:.3g} GB: {remedy}"
        )


def check_flops(flops: float, remedy: str) -> None:
    """Raises ConfigError for a number of floating-point operations that takes this machine many years."""
    speed = max(CORE_SPEED * (os.cpu_count() or 1), GPU_SPEED * n_gpus()) * n_machines()
    if flops > MAX_YEARS * YEAR * speed:
        raise ConfigError(
            f"this takes at least {flops / speed / YEAR:.3g} years on this machine, the limit is {MAX_YEARS}: {remedy}"
        )


def training_flops(settings: ModelSettings, train: TrainSettings) -> float:
    """Returns the operations of a training; raises ConfigError if it cannot fit in memory."""
    parameters, size = n_parameters(settings), settings.size
    check_bytes(
        f"a model with size.n_layers {size.n_layers} and size.d_model {size.d_model}",
        PARAMETER_BYTES * parameters,
        "give a smaller size",
    )
    tokens = train.batch_size * train.seq_len
    width = size.n_layers * size.d_model
    check_bytes(
        f"a step with train.batch_size {train.batch_size} and train.seq_len {train.seq_len}",
        tokens * max(ID_BYTES, ACTIVATION_BYTES * width / train.grad_accum_steps),
        "give a smaller train.batch_size or train.seq_len",
    )
    return training_cost(settings, train).flops


def evaluation_flops(
    settings: ModelSettings, name: str, task: Mapping[str, Any], evaluation: EvaluationSettings
) -> float:
    """Returns the operations of an evaluation; raises ConfigError if its prompts cannot fit in memory.

    Args:
        name: of the task.
        task: keyword arguments of the task.
    """
    flops = 0.0
    counts = {key: task[key] for key in COUNTS if isinstance(task.get(key), int)}
    prompts = n_prompts(task)
    train_len = settings.train.seq_len
    named = f"{name} with {', '.join(f'{key} {count}' for key, count in counts.items())}"
    fewer = f"give fewer {' or '.join(key.removeprefix('num_') for key in counts)}"
    if prompts > MAX_PROMPTS:
        raise ConfigError(f"{named} has {prompts:.15g} prompts and the limit is {MAX_PROMPTS}: {fewer}")
    for length in [
        *evaluation.lengths,
        *(tokens_at(multiple, train_len) for multiple in evaluation.length_multiples),
    ]:
        check_bytes(
            f"{named} at {length:.15g} tokens",
            prompts * (PROMPT_BYTES + ID_BYTES * length),
            f"{fewer} or a shorter length",
        )
        flops += evaluation_cost(settings, task, length).flops
    return flops
