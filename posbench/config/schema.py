"""What a user may set, as plain dataclasses; configs/ mirrors them. Hydra is not needed to read or make one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from posbench.config.data import DataSettings
from posbench.identity import HASH_IF_SET


@dataclass
class SchemeSettings:
    """A position scheme: a label for rows, and what builds it."""

    name: str = ""
    build: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExtensionSettings:
    """A context extension around a trained scheme, or an ensemble around the whole model; neither is none.

    With `finetune` the trained model first goes on training with the extension in place: steps, length and any
    other setting of training, in place of the model's own.
    """

    name: str = "none"
    build: dict[str, Any] | None = None
    finetune: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] | None = None  # builds an LM around the model's


@dataclass
class EnsembleSettings:
    """An LM around a trained model, such as NBCE; its label stands where extensions have theirs."""

    name: str = "none"
    build: dict[str, Any] | None = None


@dataclass
class SizeSettings:
    """Counts of a model; `name` is a label."""

    name: str = "tiny"
    n_layers: int = 3
    d_model: int = 96
    n_heads: int = 6
    mlp_ratio: int = 4
    head_dim: int | None = field(default=None, metadata=HASH_IF_SET)  # by default d_model / n_heads


@dataclass
class TrainSettings:
    """One training. Lengths are tokens; a step reads `batch_size` sequences of `seq_len`."""

    seq_len: int = 64
    steps: int = 300
    batch_size: int = 48
    grad_accum_steps: int = 1  # the batch is computed in this many parts
    synthetic_fraction: float = 0.5  # share of the sequences that are synthetic
    query_fraction: float = 0.1  # share of those that have the evaluated form
    optimizer: str = "muon"  # muon (matrices; AdamW for the rest) or adamw
    lr: float = 0.003  # AdamW's
    muon_lr: float = 0.02  # Muon's
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    warmup_fraction: float = 0.05  # share of the steps
    decay_fraction: float = 0.3  # share of the steps, linear to zero
    max_grad_norm: float = 1.0  # of the gradient's norm
    dtype: str = "float32"  # or bfloat16, by autocast
    val_interval: int = 100  # steps
    val_batches: int = 4
    seed: int = 0
    # Fields that came later: they enter a model's identity only where they differ from their default, so that
    # no model that was trained before them changes its name.
    synthetic_task: str = field(
        default="associative_recall", metadata=HASH_IF_SET
    )  # or repeated, copy, reverse


@dataclass
class LMSettings:
    """What is measured: a checkpoint of scripts/train.py, or a pretrained model in place of the model's settings."""

    kind: str = "native"  # or hugging_face
    name: str = ""  # hugging_face: a folder, or a name on the hub
    revision: str = ""  # of a name on the hub: a commit, branch or tag
    dtype: str = "float32"  # of the weights: float32 or bfloat16
    black_box: bool = False  # read by transformers, also where it could be converted
    rope_scaling: dict[str, Any] = field(default_factory=dict)  # transformers' rope parameters, for its own


@dataclass
class TaskSettings:
    """A task: a label for rows, and what builds it."""

    name: str = "perplexity"
    build: dict[str, Any] = field(default_factory=dict)


@dataclass
class RuntimeSettings:
    """How and where it runs; never part of an identity."""

    device: str = "auto"  # cpu, cuda, cuda:1; auto takes a GPU where there is one
    kernel: str = "auto"  # dense, sdpa
    launcher: str = "inline"  # or local: several processes
    num_workers: int = 0  # local: processes; 0 is workers_per_gpu a GPU, or one a core
    workers_per_gpu: int = 1  # several small models fill a GPU that one leaves idle
    max_minutes: float | None = None  # starts nothing that will not finish in time, and says what is left
    num_threads: int = 1  # CPU threads a process; other numbers may round differently
    compile: bool | str = "auto"  # true, false; auto: on a GPU, where a training is one graph
    data_parallel: str = "auto"  # under torchrun: ddp, fsdp; auto takes fsdp for large models
    results_dir: str = "results"
    cache_dir: str = ".cache/posbench"
    checkpoint_interval: int = 100  # steps
    max_tokens_per_batch: int = 16384  # evaluation batch
    wandb_mode: str = "auto"  # online with a key, else offline; online, offline, disabled
    wandb_project: str = "posbench"


@dataclass
class ModelSettings:
    """Everything that makes one trained model."""

    scheme: SchemeSettings = field(default_factory=SchemeSettings)
    size: SizeSettings = field(default_factory=SizeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


@dataclass
class GridSettings:
    """The models of a sweep are the product of these lists; extensions are tried on each trained model."""

    scheme: list[str] = field(default_factory=list)
    seed: list[int] = field(default_factory=lambda: [0])
    size: list[str] = field(default_factory=list)  # empty: the chosen size alone
    train: dict[str, Any] = field(default_factory=dict)  # a list for each train setting that varies
    lr: list[float] = field(
        default_factory=list
    )  # tried for every scheme; the best by validation loss is kept
    extension: list[str] = field(default_factory=list)  # beside none
    ensemble: list[str] = field(default_factory=list)  # beside those
    extended_schemes: list[str] = field(
        default_factory=list
    )  # schemes that get them; empty: all that can carry them


@dataclass
class OverrideSettings:
    """Settings of schemes and extensions in place of those in their files, by name."""

    scheme: dict[str, Any] = field(default_factory=dict)
    extension: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationSettings:
    """One task at several lengths, given in tokens or as multiples of the training length."""

    task: str = ""  # by default the name of the entry
    length_multiples: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)  # of the task, in place of those in its file
    seed: int = 0
    dtype: str = "float32"
    include_extensions: bool = True  # whether extended models take it too


@dataclass
class VariantSettings:
    """An extension with settings of its own, under a name of its own."""

    extension: str = ""  # by default the name of the entry; none is without one
    settings: dict[str, Any] = field(default_factory=dict)  # of the extension, in place of those in its file


@dataclass
class FinetuneSettings(VariantSettings):
    """An extension with which the trained models of a sweep go on training, under a name of its own."""

    train: dict[str, Any] = field(default_factory=dict)  # steps, seq_len, ..., in place of the model's


@dataclass
class TrainScript(ModelSettings):
    """scripts/train.py."""

    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class EvaluateScript(ModelSettings):
    """scripts/evaluate.py: one trained model, one extension, one task."""

    lm: LMSettings = field(default_factory=LMSettings)
    extension: ExtensionSettings = field(default_factory=ExtensionSettings)
    ensemble: EnsembleSettings = field(default_factory=EnsembleSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class SweepScript:
    """scripts/sweep.py: an experiment."""

    name: str = "experiment"
    size: SizeSettings = field(default_factory=SizeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    overrides: OverrideSettings = field(default_factory=OverrideSettings)
    # Entries by name; OmegaConf's typed dictionaries take no new entry from a command line.
    variants: dict[str, Any] = field(default_factory=dict, metadata={"of": VariantSettings})
    finetune: dict[str, Any] = field(default_factory=dict, metadata={"of": FinetuneSettings})
    evaluate: dict[str, Any] = field(default_factory=dict, metadata={"of": EvaluationSettings})
    figures: list[str] = field(default_factory=list)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class FiguresScript:
    """scripts/figures.py: tables and figures from rows alone."""

    experiments: list[str] = field(default_factory=list)  # empty: all that have rows
    results_dir: str = "results"


@dataclass
class PropertiesScript:
    """scripts/properties.py: what makes a good scheme, measured on each one's definition."""

    schemes: list[str] = field(default_factory=list)  # empty: all
    costs: bool = True  # time and memory as well, which differ by machine
    results_dir: str = "results"
