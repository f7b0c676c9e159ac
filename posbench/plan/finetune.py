"""Fine-tuning of a trained model with an extension in place, which makes another model.

It follows the authors of the extensions. Position Interpolation (arXiv:2306.15595, section 3.1) trains 1000 steps at
the extended length and YaRN (arXiv:2309.00071, section 4.1) 400, both at a learning rate of 2e-5 after LLaMA's 3e-4;
DroPE (arXiv:2512.12167) trains at the pretraining length and close to its learning rate. All weights are trained, with
new optimizer states.

The papers keep the factor of the fine-tuning for shorter texts as well, because the weights are adapted to it. So a
factor "auto", eval_len / train_len, is at least the fine-tuned length over train_len here; past that length it grows.
An explicit factor stays as it is (YaRN's 32 was trained at 16 times the length).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from posbench.config.checks import check
from posbench.config.schema import ExtensionSettings, FinetuneTrainSettings, TrainSettings
from posbench.config.train import holds_both_kinds
from posbench.config.validation import check_effect, check_partial
from posbench.errors import ConfigError


def finetune_settings(base_settings: TrainSettings, extension: ExtensionSettings) -> TrainSettings | None:
    """Returns the settings of the fine-tuning with an extension, or None if it has no steps.

    Defaults: the sequence length of the base model, as many tokens a step (more, if text and synthetic sequences need it), and a tenth of its learning rates.

    Args:
        extension: `finetune` holds keys of TrainSettings and their values; `steps` is required.

    Raises:
        ConfigError: if a key is unknown, a value is of a wrong type or out of its range, or a setting changes nothing.
    """
    finetune = extension.finetune
    if "steps" not in finetune:
        raise ConfigError(f"the fine-tuning with {extension.name} has no steps: give a number, 0 for none")
    check_partial("finetune", finetune, FinetuneTrainSettings)
    if finetune["steps"] == 0:
        return None
    length = max(1, finetune.get("seq_len", base_settings.seq_len))
    micro_steps = max(1, finetune.get("grad_accum_steps", base_settings.grad_accum_steps))
    tokens = base_settings.batch_size * base_settings.seq_len
    smallest = max(1, round(tokens / length / micro_steps)) * micro_steps
    fraction = finetune.get("synthetic_fraction", base_settings.synthetic_fraction)
    sizes = range(smallest, smallest + 1000 * micro_steps, micro_steps)
    batch_size = next((size for size in sizes if holds_both_kinds(fraction, size)), smallest)
    rates = {"lr": base_settings.lr / 10, "muon_lr": base_settings.muon_lr / 10}
    train = replace(base_settings, **{"batch_size": batch_size, **rates, **finetune})
    try:
        check_effect(replace(base_settings, **finetune), "train.", [f"train.{key}" for key in finetune])
        check(train)
    except ConfigError as error:
        raise ConfigError(f"the fine-tuning with {extension.name}: {error}") from None
    return train


def extension_length(length: int, finetune: dict[str, Any]) -> int:
    """Returns the length in tokens to create an extension for, when it is evaluated at `length` after fine-tuning."""
    return max(length, finetune.get("seq_len", 0)) if finetune.get("steps") else length
