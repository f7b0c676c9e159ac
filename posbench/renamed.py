"""Old names of settings, schemes, extensions, tasks and metrics, and the names that replaced them.

Error messages about an unknown name look it up here, so that old commands and configs are quick to mend.
"""

import re
from collections.abc import Collection
from itertools import product

# One old name can have several new ones, by the setting, class or task that it belonged to.
RENAMED: dict[str, tuple[str, ...]] = {
    # Schemes, extensions, tasks and figures.
    "adjacent": ("position_resolution", "position_accuracy"),
    "drop_rope": ("drope",),
    "forgetting": ("fox",),
    "linear": ("linear_attention",),
    "linear_rope": ("linear_attention_rope",),
    "long_perplexity": ("longppl",),
    "rope_nope": ("rnope",),
    "rope_window_nope": ("swan",),
    "sink_window": ("streaming_llm",),
    # Settings of the scripts: train, size, data, runtime, grid, evaluate, lm.
    "accumulate": ("grad_accum_steps",),
    "adjust": ("overrides",),
    "asked": ("query_fraction",),
    "batch": ("batch_size",),
    "cache": ("cache_dir",),
    "checkpoint": ("native",),
    "checkpoint_every": ("checkpoint_interval",),
    "clip": ("max_grad_norm", "max_relative_position", "max_relative_positions"),
    "decay": ("decay_fraction",),
    "extend": ("extended_schemes",),
    "extensions": ("include_extensions",),
    "heads": ("n_heads",),
    "keys": ("num_keys",),
    "layers": ("n_layers",),
    "length": ("seq_len",),
    "matrix_lr": ("muon_lr",),
    "mlp": ("mlp_ratio",),
    "multiples": ("length_multiples",),
    "per_gpu": ("workers_per_gpu",),
    "records": ("synthetic_fraction", "associative_recall", "synthetic_records"),
    "results": ("results_dir",),
    "size": ("vocab_size", "model_size"),
    "subject": ("lm",),
    "synthetic": ("synthetic_task",),
    "threads": ("num_threads",),
    "tokens_per_pass": ("max_tokens_per_batch",),
    "validate_batches": ("val_batches",),
    "validate_every": ("val_interval",),
    "values": ("num_values",),
    "wandb": ("wandb_mode", "tracker"),
    "warmup": ("warmup_fraction",),
    "width": ("d_model",),
    "workers": ("num_workers",),
    # Settings of schemes, extensions and ensembles.
    "average": ("mean",),
    "base": ("rope_theta", "bias_scheme", "log_base"),
    "block": ("block_size",),
    "buckets": ("num_buckets", "position_buckets"),
    "c": ("init_c",),
    "chunk": ("chunk_size", "attention_chunk_size"),
    "draw": ("seed",),
    "every": ("no_rope_layer_interval",),
    "fraction": ("partial_rotary_factor",),
    "global_blocks": ("num_global_blocks",),
    "global_tokens": ("num_global_tokens",),
    "group": ("group_size",),
    "hidden": ("mlp_width",),
    "high": ("high_freq_factor",),
    "keep": ("position_scale",),
    "kernel": ("kernel_size",),
    "long": ("long_factor",),
    "low": ("low_freq_factor",),
    "over": ("base_scheme",),
    "proportion": ("partial_rotary_factor",),
    "random_blocks": ("num_random_blocks",),
    "reach": ("max_position",),
    "relative": ("rel_pos_bias",),
    "rotation": ("use_rope",),
    "sinks": ("num_sink_tokens",),
    "slowing": ("log_freq_scale",),
    "spread": ("init_norm_gain",),
    "start": ("log_base", "original_max_position_embeddings"),
    "step": ("floor_scale",),
    "strength": ("attn_scale",),
    "threshold": ("init_threshold",),
    "window": ("local_window",),
    # Settings of tasks.
    "contexts": ("num_contexts",),
    "depths": ("num_depths",),
    "digits": ("num_digits",),
    "documents": ("num_documents",),
    "examples": ("num_examples",),
    "gain": ("min_context_gain",),
    "horizon": ("max_context",),
    "loss": ("max_loss",),
    "new": ("max_new_tokens",),
    "positions": ("num_positions", "npos_max"),
    "questions": ("num_questions",),
    "rank": ("rank_all_values",),
    "short": ("short_context_len", "short_factor"),
    # Settings of figures, columns of rows, metrics.
    "cell": ("cell_id",),
    "context_guess": ("random_in_context",),
    "distance": ("attention_at_distance",),
    "document": ("doc_id",),
    "entropy": ("min_entropy", "attention_entropy"),
    "first_hit": ("first_period_token_accuracy",),
    "first_nll": ("first_period_nll",),
    "first_tokens": ("sink_attention",),
    "gold": ("answer_attention",),
    "hit": ("token_accuracy",),
    "in_context": ("predicted_in_context",),
    "key": ("key_token_fraction",),
    "key_nll": ("key_token_nll",),
    "key_perplexity": ("longppl",),
    "last_quarter": ("last_quarter_attention",),
    "log_ratio": ("log_likelihood_ratio",),
    "measure": ("metric",),
    "model": ("model_id",),
    "retrieval": ("retrieval_metric",),
    "share": ("share_axes",),
    "value": ("value_sum",),
    "where": ("filters",),
}


def current_name(given: str, allowed: Collection[str]) -> str | None:
    """Returns the current name of an old name, or of a dotted key with old names in it; None if there is none.

    Of several new names, the one in `allowed` is meant. A key that is a group of allowed keys (adjust -> overrides), or
    that lies below one (adjust.scheme.rope -> overrides.scheme.rope), is found as well.
    """
    parts = re.split(r"(\W)", given)
    for end in range(len(parts), 0, -2):
        for head in map("".join, product(*((part, *RENAMED.get(part, ())) for part in parts[:end]))):
            is_group = end == len(parts) and any(name.startswith(f"{head}.") for name in allowed)
            found = head + "".join(parts[end:])
            if found != given and (head in allowed or is_group):
                return found
    return None
