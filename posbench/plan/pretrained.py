"""Plans pretrained models, from their configuration alone."""

from __future__ import annotations

from posbench.config.data import DataSettings
from posbench.config.schema import LMSettings, ModelSettings, SchemeSettings, SizeSettings, TrainSettings
from posbench.data import hugging_face
from posbench.data.corpus import fingerprint, with_model_tokenizer
from posbench.errors import DataError
from posbench.lm.hf_config import eos_ids, inspect_pretrained
from posbench.plan.cell import ModelPlan
from posbench.plan.plan import build_untrained_scheme


def plan_pretrained(lm: LMSettings, data: DataSettings) -> ModelPlan:
    """Plans a pretrained model, on data that is encoded by its own tokenizer.

    Raises:
        DataError: if the model cannot be found, or the tokenizer has more ids than the model embeds.
    """
    pretrained = inspect_pretrained(lm)
    data = with_model_tokenizer(data, lm.name, pretrained.settings.revision)
    tokenizer, size = hugging_face.load(data.tokenizer.name, data.tokenizer.revision), pretrained.vocab_size
    if tokenizer.vocab_size > size:
        excess = f"tokens up to id {tokenizer.vocab_size - 1}, such as {tokenizer.token(size)!r} (id {size})"
        raise DataError(
            f"tokenizer {data.tokenizer.name!r} has {excess}, and the ids of {pretrained.label} end at {size - 1}: "
            "remove these tokens from its files, or give another tokenizer by data.tokenizer.name"
        )
    dims = pretrained.model_dims
    settings = ModelSettings(
        SchemeSettings(pretrained.label, pretrained.scheme),
        SizeSettings(
            pretrained.label,
            dims["n_layers"],
            dims["d_model"],
            dims["n_heads"],
            round(dims["intermediate_size"] / dims["d_model"]),
            dims["head_dim"],
        ),
        data,
        TrainSettings(seq_len=pretrained.train_len),
    )
    version = build_untrained_scheme(settings).version
    ends = eos_ids(pretrained.settings, hugging_face.load_auto(data.tokenizer.name, data.tokenizer.revision))
    return ModelPlan(settings, fingerprint(data), version, pretrained=pretrained, eos_ids=ends)
