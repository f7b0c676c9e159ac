"""Tiny transformers models of several families with random weights, and their folders with a tokenizer."""

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY, TRAIN_LEN = 300, 32
SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAIN_LEN,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "arcee": {"model_type": "arcee", "attention_bias": True, "hidden_act": "gelu"},
    "smollm": {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 4},
    "mistral": {"model_type": "mistral", "sliding_window": 8},
    "mistral_without_window": {"model_type": "mistral", "sliding_window": None, "head_dim": 12},
    "qwen2": {"model_type": "qwen2"},
    "qwen2_window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 2,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3", "no_rope_layer_interval": 2},
    "smollm3_window": {
        "model_type": "smollm3",
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": 8,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "query_pre_attn_scalar": 12,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "final_logit_softcapping": 5.0,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    },
    "olmo3": {
        "model_type": "olmo3",
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "head_dim": 8,
        "sliding_window": 8,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "swiglu_limit": 1.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    },
    "phi3": {"model_type": "phi3", "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "phi3_window": {
        "model_type": "phi3",
        "sliding_window": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    },
    "pythia": {"model_type": "gpt_neox"},
    "neox_sequential": {
        "model_type": "gpt_neox",
        "hidden_act": "gelu_fast",
        "use_parallel_residual": False,
        "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
    },
    "gpt2": {"model_type": "gpt2"},
    "gpt2_narrow": {
        "model_type": "gpt2",
        "n_inner": 40,
        "scale_attn_weights": False,
        "activation_function": "relu",
        "tie_word_embeddings": False,
    },
}
BEFORE = {"original_max_position_embeddings": TRAIN_LEN}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, **BEFORE},
    "yarn_all_parameters": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "attention_factor": 1.3,
        **BEFORE,
    },
    "yarn_mscale": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5, **BEFORE},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        **BEFORE,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 1.5, 2.0, 4.0],
        **BEFORE,
    },
    "longrope_attention_factor": {
        "rope_type": "longrope",
        "attention_factor": 1.2,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 1.5, 2.0, 4.0],
        **BEFORE,
    },
}


def hf_model(model_type: str, **given: Any) -> torch.nn.Module:
    """A transformers model with seeded random weights, large enough that positions matter."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SHARED, **given})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    return model


@functools.cache
def trained_tokenizer() -> Tokenizer:
    """A byte-level BPE whose first ids are special tokens, as in Llama and Qwen."""
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    encoder.train_from_iterator(["def f(x):\n    return x + 1\n"] * 20, trainer)
    return encoder


def saved(folder: Path, model_type: str, **given: Any) -> Path:
    """Saves a model and a tokenizer with save_pretrained; returns the folder."""
    hf_model(model_type, **given).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained_tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return folder
