"""Settings of the launchers of a cluster, which configs/runtime/*.yaml fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from posbench.config.setting import MAX_COUNT, MAX_PROCESSES, setting

ONE_LINE = r"[^\n\r\0]+", "a text of one line"


@dataclass
class SlurmSettings:
    """The array of workers of launcher slurm: configs/runtime/slurm.yaml. A field that is null is left to the cluster."""

    workers: int = setting(
        4, least=1, most=10**5
    )  # width of the array; there are never more workers than jobs
    partition: str | None = setting(None, pattern=ONE_LINE)
    account: str | None = setting(None, pattern=ONE_LINE)
    minutes: int = setting(240, least=1, most=MAX_COUNT)  # time limit of a worker, which is requeued after it
    gpus: int = setting(1, least=0, most=1024)  # GPUs of a worker; 0 for the CPU
    cpus: int = setting(4, least=1, most=MAX_PROCESSES)  # CPU cores of a worker
    memory_gb: float | None = setting(None, above=0, most=10**6)
    # Seconds before the time limit at which a worker is signalled to write a checkpoint.
    signal_seconds: int = setting(120, least=1, most=10**5)
    requeues: int = setting(100, least=0, most=MAX_COUNT)  # how often a worker is requeued at its time limit
    # Other options of sbatch by name, such as {constraint: a100, qos: low}.
    sbatch: dict[str, Any] = field(default_factory=dict)


@dataclass
class RaySettings:
    """The actors of launcher ray: configs/runtime/ray.yaml."""

    address: str | None = None  # of a running cluster, such as auto or ray://host:10001; null starts Ray here
    workers: int = setting(0, least=0, most=10**5)  # number of actors; 0 is as many as the cluster can hold
    gpus: float = setting(
        0.25, least=0, most=1024
    )  # GPUs of a worker, here four workers a GPU; 0 for the CPU
    cpus: float = setting(1.0, above=0, most=MAX_PROCESSES)  # CPU cores of a worker
