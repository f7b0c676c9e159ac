"""Checks of settings that concern two fields; each alone is checked by posbench.config.validation."""

import re
from importlib.util import find_spec
from shutil import which

from posbench.config.data import DataSettings
from posbench.config.schema import RuntimeSettings, TrainSettings
from posbench.config.train import holds_both_kinds, synthetic_sequences
from posbench.config.validation import validate
from posbench.errors import ConfigError

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
# Options of sbatch that posbench writes itself -> the setting to give instead, if there is one.
OWN_SBATCH_OPTIONS = {
    "array": "workers",
    "job-name": "",
    "time": "minutes",
    "cpus-per-task": "cpus",
    "gpus-per-node": "gpus",
    "mem": "memory_gb",
    "partition": "partition",
    "account": "account",
    "signal": "signal_seconds",
    "output": "",
    "error": "",
    "requeue": "requeues",
}
# Options of sbatch become lines of a script.
SBATCH_OPTION, SBATCH_VALUE = re.compile(r"[a-z][a-z-]*"), re.compile(r"[^\n\r\0]*")


def check_fingerprint(settings: DataSettings) -> None:
    """Raises ConfigError for a fingerprint that is not one: it is the name of a folder in the cache."""
    if settings.fingerprint and not FINGERPRINT.fullmatch(settings.fingerprint):
        raise ConfigError(
            f"data.fingerprint {settings.fingerprint!r}: give 16 hexadecimal digits, the name of a corpus in "
            "runtime.cache_dir, or remove it"
        )


def check_launcher(runtime: RuntimeSettings) -> None:
    """Raises ConfigError for a launcher that is not installed, or whose settings do not fit together."""
    needed = {"slurm": "submitit", "ray": "ray"}.get(runtime.launcher)
    if needed and not find_spec(needed):
        raise ConfigError(
            f"runtime.launcher {runtime.launcher} needs {needed}: run pip install -e '.[{runtime.launcher}]' in "
            "the clone"
        )
    if runtime.launcher == "slurm" and not which("squeue"):
        raise ConfigError("runtime.launcher slurm: this machine has no squeue; start it on a login node")
    if not runtime.wait and not needed:
        raise ConfigError(f"runtime.wait=false with runtime.launcher {runtime.launcher}: choose slurm or ray")
    if not runtime.wait and runtime.launcher == "ray" and runtime.ray.address is None:
        raise ConfigError("runtime.wait=false needs a cluster that stays: give runtime.ray.address")
    for option, value in runtime.slurm.sbatch.items():
        if not SBATCH_OPTION.fullmatch(option) or not SBATCH_VALUE.fullmatch(str(value)):
            raise ConfigError(
                f"runtime.slurm.sbatch.{option} {value!r}: give an option of sbatch and a value of one line"
            )
        if (own := OWN_SBATCH_OPTIONS.get(option)) is not None:
            raise ConfigError(
                f"runtime.slurm.sbatch.{option} {value!r}: posbench sets this option; "
                + (f"give runtime.slurm.{own}" if own else "remove it")
            )
    if runtime.slurm.signal_seconds >= 60 * runtime.slurm.minutes:
        raise ConfigError(
            f"runtime.slurm.signal_seconds {runtime.slurm.signal_seconds} is not below runtime.slurm.minutes "
            f"{runtime.slurm.minutes}: a worker would stop at its start; give fewer seconds or more minutes"
        )


def check(settings: TrainSettings) -> None:
    """Raises ConfigError for training settings out of their range."""
    validate(settings, "train.")
    fraction, size = settings.synthetic_fraction, settings.batch_size
    if not holds_both_kinds(fraction, size):
        count = synthetic_sequences(fraction, size)
        raise ConfigError(
            f"train.synthetic_fraction {fraction:g} of train.batch_size {size} is {count} whole sequences: give a larger "
            f"train.batch_size, or train.synthetic_fraction={count // size}"
        )
    if settings.batch_size % settings.grad_accum_steps:
        raise ConfigError(
            f"train.grad_accum_steps {settings.grad_accum_steps} does not divide train.batch_size {settings.batch_size}: choose a divisor"
        )
    fractions = settings.warmup_fraction + settings.decay_fraction
    if fractions > 1 + 1e-9:
        raise ConfigError(
            f"train.warmup_fraction {settings.warmup_fraction} and train.decay_fraction {settings.decay_fraction}: give two "
            "with a sum of at most 1, so that train.lr is reached"
        )
