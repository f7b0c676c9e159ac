"""Local and global layers: windowed layers, and every few layers a global one under a scheme of its own.

Gemma Team. Gemma 3 Technical Report. 2025. arXiv:2503.19786. Also Gemma 4, gpt-oss (arXiv:2508.10925) and
OLMo 3 (arXiv:2512.13961), whose configurations stand in configs/scheme under their names; norms of queries and keys
belong to the model. The global layer is the last of each n; a model of fewer than n layers has one, its last.
"""

from collections.abc import Mapping
from typing import Any

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.compose import Layered
from posbench.position.geometry import Mask
from posbench.position.hybrid import every_nth
from posbench.position.local_attention import sliding_window, tokens_within_train_len
from posbench.position.masks import and_masks
from posbench.position.scheme import AttentionInputs, ModelShape

LEAST_WINDOW = (
    8  # tokens; a shorter default would leave a local layer of a small model nearly without context
)


@register("scheme/local_global")
class LocalGlobal(Layered):
    """Layers n, 2n, ... of `sliding_window_pattern` n: `global_scheme`; the others: `local_scheme` where i - j < window."""

    def __init__(
        self,
        shape: ModelShape,
        local_scheme: Mapping[str, Any],
        global_scheme: Mapping[str, Any],
        sliding_window_pattern: int = 6,
        window: int | None = None,
        windows_per_train_len: int = 32,
    ) -> None:
        layers = every_nth(shape.n_layers, sliding_window_pattern, "sliding_window_pattern")
        super().__init__(shape, [local_scheme, global_scheme], layers)
        if windows_per_train_len < 1:
            raise ConfigError(f"local_global windows_per_train_len {windows_per_train_len}: give at least 1")
        default = min(shape.train_len, max(LEAST_WINDOW, shape.train_len // windows_per_train_len))
        self.window = tokens_within_train_len(
            shape, "local_global window", window, default, f"1/{windows_per_train_len} of it"
        )

    def mask(self, inputs: AttentionInputs) -> Mask | None:
        is_local = self.layers[inputs.layer] == 0
        return and_masks(super().mask(inputs), sliding_window(self.window, inputs) if is_local else None)
