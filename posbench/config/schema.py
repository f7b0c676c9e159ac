"""The settings of the scripts as plain dataclasses, which configs/*.yaml fill; reading or making one needs no Hydra.

`build` is a dictionary for posbench.instantiate: `_target_`, the dotted path of a class, and its keyword arguments.
Empty lists and dictionaries mean none unless a comment says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from posbench.config.data import DataSettings
from posbench.identity import HASH_IF_SET
from posbench.names import NAME


@dataclass
class SchemeSettings:
    """A position scheme: configs/scheme."""

    name: str = field(default="", metadata=NAME)  # label in rows, tables and figures
    build: dict[str, Any] = field(default_factory=dict)  # a posbench.position.scheme.PositionScheme


@dataclass
class ExtensionSettings:
    """A context extension of a trained scheme, or an ensemble in its place: configs/extension.

    Without `build` and `ensemble` the model is evaluated as it is.
    """

    name: str = field(default="none", metadata=NAME)  # label in rows, tables and figures
    build: dict[str, Any] | None = None  # a posbench.position.extension.Extension
    # Fine-tuning with the extension in place before the evaluation: keys of TrainSettings and their values, in place
    # of those of sweep.finetune.finetune_settings. Requires `steps`; with 0 steps, the model is not fine-tuned.
    finetune: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] | None = None  # the `build` of EnsembleSettings


@dataclass
class EnsembleSettings:
    """A wrapper of a trained model that combines its predictions over parts of the context: configs/ensemble."""

    name: str = field(default="none", metadata=NAME)  # label in the column `extension` of rows
    build: dict[str, Any] | None = None  # such as posbench.lm.nbce.NBCE; null is none


@dataclass
class SizeSettings:
    """The size of a model: configs/size."""

    name: str = field(default="tiny", metadata=NAME)  # label in rows, tables and figures
    n_layers: int = 3  # transformer blocks
    d_model: int = 96  # width of the residual stream; a multiple of n_heads
    n_heads: int = 6  # attention heads in each layer
    mlp_ratio: int = 4  # hidden width of the MLP in multiples of d_model
    # Width of a head; null is d_model / n_heads.
    head_dim: int | None = field(default=None, metadata=HASH_IF_SET)


@dataclass
class TrainSettings:
    """One training, pretraining or fine-tuning."""

    seq_len: int = 64  # tokens of a sequence
    steps: int = 300  # updates of the weights
    # Sequences of one step: the total over all ranks of torchrun and all micro-steps.
    batch_size: int = 48
    grad_accum_steps: int = 1  # micro-steps of a step, whose gradients are summed; divides batch_size / ranks
    synthetic_fraction: float = 0.5  # synthetic sequences among those of a batch, 0 to 1; the others are text
    query_fraction: float = 0.1  # sequences in the evaluated form among the synthetic ones, 0 to 1
    optimizer: str = "muon"  # muon (for the matrices of the blocks, AdamW for all else) or adamw
    lr: float = 0.003  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    weight_decay: float = 0.0  # of AdamW, for matrices and embeddings
    beta1: float = 0.9  # of AdamW
    beta2: float = 0.98  # of AdamW
    warmup_fraction: float = 0.05  # share of the steps with a linear increase of the learning rates, 0 to 1
    decay_fraction: float = 0.3  # share of the steps with a linear decrease to zero, at the end, 0 to 1
    max_grad_norm: float = 1.0  # gradients are clipped to this norm; 0 does not clip
    dtype: str = "float32"  # of the computation: float32, or bfloat16 by autocast
    val_interval: int = 100  # steps between two validations
    val_batches: int = 4  # batches of a validation
    seed: int = 0  # of the initial weights, the data and all random numbers of the training
    # associative_recall, repeated, copy or reverse: the kind of the synthetic sequences.
    synthetic_task: str = field(default="associative_recall", metadata=HASH_IF_SET)


@dataclass
class LMSettings:
    """The model that posbench evaluate measures: configs/lm."""

    kind: str = "native"  # native (trained by posbench train) or hugging_face (pretrained)
    # The other fields are for hugging_face.
    name: str = ""  # a folder, or a name on the hub
    revision: str = ""  # on the hub: a commit, branch or tag; empty is main
    dtype: str = "float32"  # of the weights: float32 or bfloat16
    black_box: bool = False  # true runs transformers' implementation even where the model can be converted
    train_len: int = 0  # training length in tokens; 0 is that of config.json
    # RoPE scaling in transformers' form, in place of the model's own; empty keeps it.
    rope_scaling: dict[str, Any] = field(default_factory=dict)


@dataclass
class TaskSettings:
    """A task: configs/task."""

    name: str = field(default="perplexity", metadata=NAME)  # label
    build: dict[str, Any] = field(default_factory=dict)  # a posbench.tasks.task.Task


@dataclass
class RuntimeSettings:
    """How and where a script runs: configs/runtime. No identity of a model or a cell depends on it."""

    device: str = "auto"  # cpu, cuda or cuda:N; auto is a GPU if there is one
    # Attention kernel: dense, flex or sdpa; auto is the fastest that supports the scheme.
    kernel: str = "auto"
    launcher: str = "inline"  # inline (one job at a time in this process) or local (several worker processes)
    # Processes of launcher local; 0 is workers_per_gpu for each GPU or, without one, a process for num_threads cores.
    num_workers: int = 0
    workers_per_gpu: int = 1  # processes of launcher local that share a GPU
    # Minutes that a sweep may take; jobs that would end later are left for its next run. null is no limit.
    max_minutes: float | None = None
    num_threads: int = 1  # CPU threads of a process; rounding can depend on it
    # torch.compile for training: true, false, or auto (on a GPU, if it is one graph).
    compile: bool | str = "auto"
    data_parallel: str = "auto"  # under torchrun: ddp, fsdp, or auto (fsdp for large models)
    results_dir: str = "results"  # folder of models, cells, tables and figures
    cache_dir: str = ".cache/posbench"  # folder of tokenized corpora
    checkpoint_interval: int = 100  # steps between two checkpoints of a training
    # Tokens of an evaluation batch; halved when the device is out of memory.
    max_tokens_per_batch: int = 16384
    wandb_mode: str = "auto"  # online, offline, disabled, or auto (online with an API key, else offline)
    wandb_project: str = ""  # project on Weights & Biases; empty is WANDB_PROJECT or, without one, posbench


@dataclass
class ModelSettings:
    """All settings that determine a trained model."""

    scheme: SchemeSettings = field(default_factory=SchemeSettings)
    size: SizeSettings = field(default_factory=SizeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)


@dataclass
class GridSettings:
    """The models of a sweep, the Cartesian product of these lists, and the extensions that each is evaluated with."""

    scheme: list[str] = field(default_factory=list)  # names in configs/scheme; at least one
    seed: list[int] = field(default_factory=lambda: [0])  # values of train.seed; at least one
    size: list[str] = field(default_factory=list)  # names in configs/size; empty is the setting `size` alone
    # Keys of TrainSettings, each with the list of its values.
    train: dict[str, Any] = field(default_factory=dict)
    # Values of train.lr, with train.muon_lr in proportion. All are trained; for each scheme, only the rate with the
    # lowest validation loss is evaluated. Empty is train.lr alone.
    lr: list[float] = field(default_factory=list)
    extension: list[str] = field(default_factory=list)  # names in configs/extension, in addition to none
    ensemble: list[str] = field(default_factory=list)  # names in configs/ensemble, in addition to those
    # Schemes to evaluate with extensions, ensembles, variants and fine-tuning; empty is every scheme that allows them.
    extended_schemes: list[str] = field(default_factory=list)


@dataclass
class OverrideSettings:
    """Keyword arguments of `build` in place of those in configs/<group>/<name>.yaml, by name."""

    scheme: dict[str, Any] = field(default_factory=dict)
    extension: dict[str, Any] = field(default_factory=dict)
    ensemble: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationSettings:
    """One task at several lengths: an entry of `evaluate` in a sweep."""

    task: str = ""  # name in configs/task; empty is the name of the entry
    length_multiples: list[float] = field(default_factory=list)  # lengths in multiples of the training length
    lengths: list[int] = field(default_factory=list)  # lengths in tokens, in addition to those
    # Keyword arguments in place of those in the task's file.
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0  # of the prompts
    dtype: str = "float32"  # of the computation: float32, or bfloat16 by autocast
    include_extensions: bool = True  # false evaluates models without extensions only


@dataclass
class VariantSettings:
    """An extension with other settings under another name: an entry of `variants` in a sweep."""

    extension: str = ""  # name in configs/extension; empty is the name of the entry
    settings: dict[str, Any] = field(default_factory=dict)  # keyword arguments in place of those in its file


@dataclass
class FinetuneSettings(VariantSettings):
    """Fine-tuning of the trained models with an extension in place: an entry of `finetune` in a sweep."""

    train: dict[str, Any] = field(default_factory=dict)  # as ExtensionSettings.finetune


@dataclass
class Script:
    """Settings that all scripts with yaml files share."""

    # Packages outside posbench whose classes and functions may be used, such as [my_schemes]. Only the command line
    # sets it, because files can come from others.
    allow: Any = field(default_factory=list)


@dataclass
class TrainScript(ModelSettings, Script):
    """Settings of posbench train: one training."""

    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class EvaluateScript(ModelSettings, Script):
    """Settings of posbench evaluate: one model, one extension or ensemble, one task."""

    lm: LMSettings = field(default_factory=LMSettings)
    extension: ExtensionSettings = field(default_factory=ExtensionSettings)
    ensemble: EnsembleSettings = field(default_factory=EnsembleSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class SweepScript(Script):
    """Settings of posbench sweep: an experiment."""

    # Folder of its tables and figures below runtime.results_dir.
    name: str = field(default="experiment", metadata=NAME)
    size: SizeSettings = field(default_factory=SizeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    overrides: OverrideSettings = field(default_factory=OverrideSettings)
    # Entries by name. They are typed by config.hydra_app, because a command line cannot add an entry to a typed
    # dictionary of OmegaConf.
    variants: dict[str, Any] = field(default_factory=dict, metadata={"of": VariantSettings})
    finetune: dict[str, Any] = field(default_factory=dict, metadata={"of": FinetuneSettings})
    evaluate: dict[str, Any] = field(default_factory=dict, metadata={"of": EvaluationSettings})
    figures: list[str] = field(default_factory=list)  # names in configs/figure
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass
class FiguresScript(Script):
    """Settings of posbench figures, which draws tables and figures from stored rows."""

    # Names of experiments; empty is all that have rows.
    experiments: list[str] = field(default_factory=list, metadata=NAME)
    results_dir: str = "results"  # folder of the experiments


@dataclass
class PropertiesScript(Script):
    """Settings of posbench properties, which measures properties of the schemes themselves."""

    schemes: list[str] = field(default_factory=list)  # names in configs/scheme; empty is all
    costs: bool = True  # false leaves out time and memory, which depend on the machine
    results_dir: str = "results"  # folder of the table and the figure
