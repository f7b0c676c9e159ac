"""Configuration of an exported model in transformers."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class PosbenchConfig(PretrainedConfig):
    """Settings of a GPT, its position scheme and its extension.

    Args:
        architecture: fields of `Architecture`.
        scheme: `_target_`, the dotted path of a class in posbench, and its keyword arguments.
        extension: likewise, around the scheme; None for the scheme as it was trained.
        train_len: training length in tokens.
        length: declared length in tokens, for which an extension is built. Schemes and extensions that depend on the
            length of the whole text use it, or the number of tokens that were read if that is larger. None for the
            latter at any length.
        seed: of the training, with which the scheme was built.
    """

    model_type = "posbench"

    def __init__(
        self,
        architecture: dict[str, Any] | None = None,
        scheme: dict[str, Any] | None = None,
        extension: dict[str, Any] | None = None,
        train_len: int = 1,
        length: int | None = None,
        seed: int = 0,
        vocab_size: int = 1,
        **kwargs: Any,
    ) -> None:
        self.architecture, self.scheme, self.extension = architecture or {}, scheme or {}, extension
        self.train_len, self.length, self.seed, self.vocab_size = train_len, length, seed, vocab_size
        self.hidden_size = self.architecture.get("d_model", 1)
        self.num_hidden_layers = self.architecture.get("n_layers", 1)
        self.num_attention_heads = self.architecture.get("n_heads", 1)
        self.num_key_value_heads = self.architecture.get("n_kv_heads", 1)
        kwargs["tie_word_embeddings"] = self.architecture.get("tie_embeddings", False)
        super().__init__(**kwargs)
