"""The settings of the scripts as plain dataclasses, which configs/*.yaml fill; reading or making one needs no Hydra.

`build` is a dictionary for posbench.instantiate: `_target_`, the dotted path of a class, and its keyword arguments.
An empty list or dictionary means none, except where a comment gives another meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from posbench.config.data import DataSettings
from posbench.config.extension import EnsembleSettings, ExtensionSettings
from posbench.config.launchers import RaySettings, SlurmSettings
from posbench.config.lm import LMSettings
from posbench.config.setting import (
    DTYPES,
    FOLDER,
    MAX_COUNT,
    MAX_PROCESSES,
    MAX_SEED,
    Rule,
    setting,
)
from posbench.config.train import FinetuneTrainSettings, TrainSettings

TRACKERS = ("wandb", "trackio", "tensorboard", "none")
# Commands that run jobs, that train (`evaluate` only with extension.finetune), and that evaluate.
RUNNING, TRAINING, EVALUATING = (
    ("train", "evaluate", "sweep"),
    ("train", "sweep"),
    ("evaluate", "search", "sweep"),
)
ON_CLUSTER, LOCAL = {"launcher": Rule(choices=("slurm", "ray"))}, {"launcher": Rule(choices=("local",))}


@dataclass
class SchemeSettings:
    """A position scheme: configs/scheme."""

    name: str = setting("", is_name=True)  # label in rows, tables and figures
    build: dict[str, Any] = setting(dict, target=True)  # a posbench.position.scheme.PositionScheme


@dataclass
class SizeSettings:
    """The size of a model: configs/size."""

    name: str = setting("tiny", is_name=True)  # label in rows, tables and figures
    n_layers: int = setting(3, least=1, most=10**5)  # transformer blocks
    d_model: int = setting(96, least=1, most=10**6)  # width of the residual stream; a multiple of n_heads
    n_heads: int = setting(6, least=1, most=10**5)  # attention heads in each layer
    mlp_ratio: int = setting(4, least=1, most=1000)  # hidden width of the MLP in multiples of d_model
    # Width of a head; null is d_model / n_heads.
    head_dim: int | None = setting(None, least=1, most=10**5, hash_if_set=True)


@dataclass
class TaskSettings:
    """A task: configs/task."""

    name: str = setting("perplexity", is_name=True)  # label
    build: dict[str, Any] = setting(dict, target=True)  # a posbench.tasks.task.Task


@dataclass
class RuntimeSettings:
    """How and where a script runs: configs/runtime. No identity of a model or a cell depends on it."""

    # cpu, cuda or cuda:N; auto is a GPU if there is one
    device: str = setting("auto", pattern=(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N"))
    # Attention kernel: dense, flex or sdpa; auto is the fastest that supports the scheme.
    kernel: str = setting("auto", choices=("auto", "dense", "flex", "sdpa"))
    # inline (one job at a time in this process), local (several worker processes), slurm (a job array) or ray (actors)
    launcher: str = setting("local", choices=("inline", "local", "slurm", "ray"), commands=RUNNING)
    # false submits the workers of slurm or ray and leaves; the same command collects their results later.
    wait: bool = setting(True, used_with=ON_CLUSTER, commands=RUNNING)
    # Processes of launcher local; 0 is workers_per_gpu for each GPU or, without one, a process for num_threads cores.
    num_workers: int = setting(0, least=0, most=MAX_PROCESSES, used_with=LOCAL, commands=("sweep",))
    # processes of launcher local that share a GPU
    workers_per_gpu: int = setting(1, least=1, most=MAX_PROCESSES, used_with=LOCAL, commands=("sweep",))
    # Minutes after which a worker stops at its next checkpoint or cell. null is no limit.
    max_minutes: float | None = setting(None, above=0, most=MAX_COUNT, commands=RUNNING)
    # CPU threads of a process; rounding can depend on it
    num_threads: int = setting(1, least=1, most=MAX_PROCESSES, commands=RUNNING)
    # torch.compile for training: true, false, or auto (on a GPU, if it is one graph).
    compile: bool | str = setting("auto", choices=("auto", "true", "false"), commands=TRAINING)
    results_dir: str = setting("results", pattern=FOLDER)  # folder of models, cells, tables and figures
    cache_dir: str = setting(".cache/posbench", pattern=FOLDER)  # folder of tokenized corpora
    # Minutes between two checkpoints of a training, which is the most that a killed one repeats.
    checkpoint_minutes: float = setting(2.0, above=0, most=MAX_COUNT, commands=TRAINING)
    # steps between two checkpoints, in addition; null is none
    checkpoint_interval: int | None = setting(None, least=1, most=MAX_COUNT, commands=TRAINING)
    # Tokens of an evaluation batch; halved when the device is out of memory.
    max_tokens_per_batch: int = setting(16384, least=1, most=10**12, commands=EVALUATING)
    # Mirror of metrics, tables and figures: wandb, trackio, tensorboard or none. Results do not depend on it.
    tracker: str = setting("wandb", choices=TRACKERS, commands=RUNNING)
    # of tracker wandb: online, offline, disabled, or auto (online with an API key, else offline)
    wandb_mode: str = setting(
        "auto",
        choices=("auto", "online", "offline", "disabled"),
        used_with={"tracker": Rule(choices=("wandb",))},
        commands=RUNNING,
    )
    # project of tracker wandb or trackio; empty is WANDB_PROJECT or, without one, posbench
    wandb_project: str = setting(
        "", used_with={"tracker": Rule(choices=("wandb", "trackio"))}, commands=RUNNING
    )
    # Seconds without a sign of a worker on another machine after which its job is taken over.
    lease_seconds: float = setting(90.0, least=1, most=10**5, commands=RUNNING)
    slurm: SlurmSettings = setting(
        SlurmSettings, used_with={"launcher": Rule(choices=("slurm",))}, commands=RUNNING
    )
    ray: RaySettings = setting(RaySettings, used_with={"launcher": Rule(choices=("ray",))}, commands=RUNNING)


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
    seed: list[int] = setting(lambda: [0], least=0, most=MAX_SEED)  # values of train.seed; at least one
    size: list[str] = field(default_factory=list)  # names in configs/size; empty is the setting `size` alone
    # Keys of TrainSettings, each with the list of its values.
    train: dict[str, Any] = setting(dict, lists_of=lambda: TrainSettings)
    # Values of train.lr, with train.muon_lr in proportion. All are trained; for each scheme, only the rate with the
    # lowest validation loss is evaluated. Empty is train.lr alone.
    lr: list[float] = setting(list, above=0, most=1000)
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
    # lengths in multiples of the training length
    length_multiples: list[float] = setting(list, above=0, most=MAX_COUNT)
    lengths: list[int] = setting(list, least=1, most=MAX_COUNT)  # lengths in tokens, in addition to those
    # Keyword arguments in place of those in the task's file.
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = setting(0, least=0, most=MAX_SEED)  # of the prompts
    dtype: str = setting("float32", choices=DTYPES)  # of the computation: float32, or bfloat16 by autocast
    include_extensions: bool = True  # false evaluates models without extensions only


@dataclass
class VariantSettings:
    """An extension with other settings under another name: an entry of `variants` in a sweep."""

    extension: str = ""  # name in configs/extension; empty is the name of the entry
    settings: dict[str, Any] = field(default_factory=dict)  # keyword arguments in place of those in its file


@dataclass
class FinetuneSettings(VariantSettings):
    """Fine-tuning of the trained models with an extension in place: an entry of `finetune` in a sweep."""

    # as ExtensionSettings.finetune
    train: dict[str, Any] = setting(dict, keys_of=lambda: FinetuneTrainSettings)


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
    name: str = setting("experiment", is_name=True)
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
    experiments: list[str] = setting(list, is_name=True)
    results_dir: str = setting("results", pattern=FOLDER)  # folder of the experiments


@dataclass
class ReportScript(FiguresScript):
    """Settings of posbench report, which writes the report as one HTML file."""

    out: str | None = None  # the file; null is report.html in the results folder


@dataclass
class ReproductionsScript(Script):
    """Settings of posbench reproductions, which sets published numbers beside stored rows."""

    results_dir: str = setting("results", pattern=FOLDER)  # folder of the experiments


@dataclass
class PropertiesScript(Script):
    """Settings of posbench properties, which measures properties of the schemes themselves."""

    schemes: list[str] = field(default_factory=list)  # names in configs/scheme; empty is all
    costs: bool = True  # false leaves out time and memory, which depend on the machine
    results_dir: str = setting("results", pattern=FOLDER)  # folder of the table and the figure
