"""Settings of context extensions and of ensembles, which configs/extension and configs/ensemble fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posbench.config.setting import setting
from posbench.config.train import FinetuneTrainSettings
from posbench.errors import ConfigError

ON_LAYERS = "posbench.position.on_layers.OnLayers"


@dataclass
class ExtensionSettings:
    """A context extension of a trained scheme, or an ensemble in its place: configs/extension.

    Without `build` and `ensemble` the model is evaluated as it is.
    """

    name: str = setting("none", is_name=True)  # label in rows, tables and figures
    build: dict[str, Any] | None = setting(None, target=True)  # a posbench.position.extension.Extension
    # Fine-tuning with the extension in place before the evaluation: keys of TrainSettings and their values, in place
    # of those of plan.finetune.finetune_settings. Requires `steps`; with 0 steps, the model is not fine-tuned.
    finetune: dict[str, Any] = setting(dict, keys_of=lambda: FinetuneTrainSettings)
    ensemble: dict[str, Any] | None = setting(None, target=True)  # the `build` of EnsembleSettings
    layers: Any = (
        "all"  # layers that it changes: all, full (without a window), windowed, or a list of indices
    )

    def __post_init__(self) -> None:
        if self.layers == "all" or (self.build or {}).get("_target_") == ON_LAYERS:
            return
        is_list = (
            isinstance(self.layers, list) and self.layers and all(type(one) is int for one in self.layers)
        )
        if not is_list and self.layers not in ("full", "windowed"):
            raise ConfigError(
                f"extension.layers {self.layers!r}: give all, full, windowed or a list of indices from 0"
            )
        if self.build is None:
            raise ConfigError(
                f"extension.layers {self.layers} without an extension: choose one, such as extension=yarn"
            )
        listed = runs(self.layers) if isinstance(self.layers, list) else self.layers
        self.name = f"{self.name}_{listed}"
        self.build = {"_target_": ON_LAYERS, "layers": self.layers, "extension": self.build}


def runs(indices: list[int]) -> str:
    """Returns indices as the part of a name, with runs of three or more shortened: 0-3_7."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return "_".join(f"{one[0]}-{one[-1]}" if len(one) > 2 else "_".join(map(str, one)) for one in parts)


@dataclass
class EnsembleSettings:
    """A wrapper of a trained model that combines its predictions over parts of the context: configs/ensemble."""

    name: str = setting("none", is_name=True)  # label in the column `extension` of rows
    build: dict[str, Any] | None = setting(None, target=True)  # such as posbench.lm.nbce.NBCE; null is none
