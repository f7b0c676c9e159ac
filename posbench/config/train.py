"""Settings of a training and of a fine-tuning, which configs/train.yaml fills."""

from __future__ import annotations

from dataclasses import dataclass

from posbench.config.setting import DTYPES, MAX_COUNT, MAX_SEED, Rule, setting

# Kinds of synthetic sequences with a form in which they are evaluated and another one, mixed by query_fraction.
WITH_TWO_FORMS = (
    *("associative_recall", "repeated", "copy", "reverse", "unique_copy", "repeated_copy", "sort"),
    *("binary_majority", "majority", "parity"),
)
SYNTHETIC_TASKS = (
    *WITH_TWO_FORMS,
    *("recall_questions", "recall_questions_at_ends", "flip_flop", "mqar", "mqar_spread"),
    *("multi_value", "multi_query", "variable_tracking"),
)
WITH_SYNTHETIC = {"synthetic_fraction": Rule(above=0)}
WITH_QUERIES = {**WITH_SYNTHETIC, "synthetic_task": Rule(choices=WITH_TWO_FORMS)}


@dataclass
class TrainSettings:
    """One training, pretraining or fine-tuning."""

    seq_len: int = setting(64, least=1, most=MAX_COUNT)  # tokens of a sequence
    steps: int = setting(300, least=1, most=MAX_COUNT)  # updates of the weights
    # Sequences of one step: the total over all ranks of torchrun and all micro-steps.
    batch_size: int = setting(48, least=1, most=MAX_COUNT)
    # micro-steps of a step, whose gradients are summed; divides batch_size / ranks
    grad_accum_steps: int = setting(1, least=1, most=MAX_COUNT)
    # synthetic sequences among those of a batch, 0 to 1; the others are text
    synthetic_fraction: float = setting(0.5, least=0, most=1)
    # sequences in the evaluated form among the synthetic ones, 0 to 1
    query_fraction: float = setting(0.1, least=0, most=1, used_with=WITH_QUERIES)
    # muon (for the matrices of the blocks, AdamW for all else) or adamw
    optimizer: str = setting("muon", choices=("muon", "adamw"))
    lr: float = setting(0.003, above=0, most=1e30)  # peak learning rate of AdamW
    # peak learning rate of Muon
    muon_lr: float = setting(0.02, above=0, most=1e30, used_with={"optimizer": Rule(choices=("muon",))})
    # Decoupled weight decay of both optimizers, for weight matrices and embeddings: a step with learning rate r
    # multiplies them by 1 - r * weight_decay.
    weight_decay: float = setting(0.0, least=0, most=1000)
    beta1: float = setting(0.9, least=0, below=1)  # of AdamW
    beta2: float = setting(0.98, least=0, below=1)  # of AdamW
    # share of the steps with a linear increase of the learning rates, 0 to 1
    warmup_fraction: float = setting(0.05, least=0, most=1)
    # share of the steps with a linear decrease to zero, at the end, 0 to 1
    decay_fraction: float = setting(0.3, least=0, most=1)
    max_grad_norm: float = setting(1.0, least=0)  # gradients are clipped to this norm; 0 does not clip
    dtype: str = setting("float32", choices=DTYPES)  # of the computation: float32, or bfloat16 by autocast
    val_interval: int = setting(100, least=1, most=MAX_COUNT)  # steps between two validations
    val_batches: int = setting(4, least=1, most=MAX_COUNT)  # batches of a validation
    # of the initial weights, the data and all random numbers of the training
    seed: int = setting(0, least=0, most=MAX_SEED)
    # the kind of the synthetic sequences, such as associative_recall, repeated, copy or mqar
    synthetic_task: str = setting(
        "associative_recall", choices=SYNTHETIC_TASKS, hash_if_set=True, used_with=WITH_SYNTHETIC
    )


def synthetic_sequences(fraction: float, batch_size: int) -> int:
    """Returns how many sequences of a batch are synthetic."""
    return round(fraction * batch_size)


def holds_both_kinds(fraction: float, batch_size: int) -> bool:
    """Returns whether a batch has text and synthetic sequences, if the fraction calls for both."""
    return not 0 < fraction < 1 or 0 < synthetic_sequences(fraction, batch_size) < batch_size


@dataclass
class FinetuneTrainSettings(TrainSettings):
    """The settings of a fine-tuning, in which 0 steps are none."""

    steps: int = setting(0, least=0, most=MAX_COUNT)
