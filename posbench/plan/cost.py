"""Tokens and floating-point operations of trainings and cells, by arithmetic on their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from posbench.config.schema import ModelSettings, TrainSettings

# Settings of tasks whose product is the number of prompts.
COUNTS = ("num_examples", "num_contexts", "num_positions", "num_depths")


class Cost(NamedTuple):
    """Tokens that a model reads, and the floating-point operations for them."""

    tokens: float
    flops: float


def n_parameters(settings: ModelSettings) -> float:
    """Returns the number of parameters of a model, without those of its scheme."""
    size = settings.size
    heads = size.n_heads * size.head_dim if size.head_dim else size.d_model
    layer = size.d_model * (4 * heads + 2 * size.mlp_ratio * size.d_model)
    symbols = settings.data.num_keys + settings.data.num_values
    return size.n_layers * layer + 2 * symbols * size.d_model


def head_parameters(settings: ModelSettings) -> float:
    """Returns the parameters of the output head for ids of text, or 0 with a tokenizer of Hugging Face."""
    tokenizer = settings.data.tokenizer
    ids = {"bytes": 256, "bpe": tokenizer.vocab_size}.get(tokenizer.kind)
    return 0.0 if ids is None else settings.size.d_model * (ids + 1.0)  # and bos


def n_prompts(task: Mapping[str, Any]) -> float:
    """Returns the number of prompts of a task, given its keyword arguments."""
    return math.prod(float(task[key]) for key in COUNTS if isinstance(task.get(key), int))


def training_cost(settings: ModelSettings, train: TrainSettings) -> Cost:
    """Returns a lower bound of the cost of a training, without the head for ids of text."""
    tokens = float(train.steps) * train.batch_size * train.seq_len
    width = settings.size.n_layers * settings.size.d_model
    return Cost(tokens, tokens * (6.0 * n_parameters(settings) + 6.0 * width * train.seq_len))


def expected_training_cost(settings: ModelSettings, train: TrainSettings) -> Cost:
    """Returns the cost of a training that scores every token."""
    bound = training_cost(settings, train)
    return bound._replace(flops=bound.flops + bound.tokens * 6.0 * head_parameters(settings))


def evaluation_cost(settings: ModelSettings, task: Mapping[str, Any], length: float) -> Cost:
    """Returns the cost of a task at one length in tokens, without the head, which runs at scored tokens alone."""
    tokens = n_prompts(task) * length
    width = settings.size.n_layers * settings.size.d_model
    return Cost(tokens, tokens * (2.0 * n_parameters(settings) + 2.0 * width * length))
