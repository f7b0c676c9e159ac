"""Fine-tuned extensions: a trained model goes on training with an extension in place, and is a model of its own.

As the extensions' authors do it. Position Interpolation (arXiv:2306.15595, section 3.1) trains 1000 steps at the
extended length and YaRN (arXiv:2309.00071, section 4.1) 400, both at a rate of 2e-5 after LLaMA's 3e-4; DroPE
(arXiv:2512.12167) trains at the length and nearly at the rate of pretraining. All weights, by fresh optimizers.

Each keeps one factor afterwards, also for shorter texts, since the weights are used to it. So here a factor
"auto", eval_len / train_len, does not fall below the fine-tuned length over train_len; past that it grows. A
factor that is given stays (YaRN's 32 was trained at 16 times the length).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_type_hints

from posbench.config.checks import check
from posbench.config.schema import TrainSettings
from posbench.errors import ConfigError, unknown
from posbench.instantiate import admits


def finetune_settings(base_settings: TrainSettings, finetune: dict[str, Any]) -> TrainSettings | None:
    """The settings of fine-tuning, or None for no steps.

    By default: the parent's length, as many tokens a step as the parent's, and a tenth of its learning rates.
    """
    hints = get_type_hints(TrainSettings)
    for key, value in finetune.items():
        if key not in hints:
            raise unknown("setting", f"finetune {key}", [f"finetune {one}" for one in hints])
        if not admits(hints[key], value):
            raise ConfigError(f"finetune {key} {value!r}: give {hints[key].__name__}")
    if finetune.get("steps", -1) < 0:
        raise ConfigError(f"finetune steps {finetune.get('steps')}: give a number of steps, 0 for none")
    if finetune["steps"] == 0:
        return None
    length = max(1, finetune.get("seq_len", base_settings.seq_len))
    parts = max(1, finetune.get("grad_accum_steps", base_settings.grad_accum_steps))
    batch = max(1, round(base_settings.batch_size * base_settings.seq_len / length / parts)) * parts
    rates = {"lr": base_settings.lr / 10, "muon_lr": base_settings.muon_lr / 10}
    train = replace(base_settings, **{"batch_size": batch, **rates, **finetune})
    check(train)
    return train


def extension_length(length: int, finetune: dict[str, Any]) -> int:
    """The length in tokens that an extension is built for, to be evaluated at `length` after this fine-tuning."""
    return max(length, finetune.get("seq_len", 0)) if finetune.get("steps") else length
