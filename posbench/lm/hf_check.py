"""Comparison of a converted model with transformers' own implementation, when it is opened."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posbench.errors import IncompatibleError
from posbench.lm.hf_loading import one_line_errors

SHORT = 32  # tokens of the short text
POSITIONS = 64  # last positions of a text at which logits are compared
# Largest difference of logits, relative to the largest logit. bfloat16 has 8 bits.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
# Limits of the long text: tokens, and parameters times tokens, which take seconds.
MAX_TOKENS = 2**13 + 1
MAX_COST = {"cpu": 4e12, "cuda": 4e14}


def check_lengths(train_len: int, n_params: int, device: torch.device) -> list[int]:
    """Returns the lengths of a short and a long text in tokens.

    The long one has more than twice the training length, or as many tokens as the limits allow.
    """
    affordable = int(MAX_COST.get(device.type, MAX_COST["cpu"]) // n_params)
    short = min(SHORT, train_len)
    return [short, max(short, min(2 * train_len + 1, MAX_TOKENS, affordable))]


def check_texts(lengths: list[int], vocab_size: int, device: torch.device) -> list[Tensor]:
    """Returns one (1, length) tensor of random ids for each length."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocab_size, (1, length), generator=generator).to(device) for length in lengths]


@torch.inference_mode()
def transformers_logits(model: Any, texts: list[Tensor], name: str) -> list[Tensor]:
    """Computes float32 logits at the last positions of each text, shortest first, on the CPU.

    Raises:
        DataError: if transformers cannot run the model `name`.
    """
    with one_line_errors(name):
        return [
            model(ids, use_cache=False, logits_to_keep=POSITIONS).logits[0].float().cpu() for ids in texts
        ]


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Returns the largest difference of logits, relative to the largest of transformers' logits."""
    scale = float(torch.stack([one.abs().max() for one in theirs]).max())
    differences = [(one - other).abs().max() for one, other in zip(ours, theirs, strict=True)]
    return float(torch.stack(differences).max()) / scale  # NaN if any logit is NaN


def check_difference(difference: float, dtype: str, lengths: list[int], name: str) -> None:
    """Raises IncompatibleError if a converted model differs from transformers' by more than rounding."""
    if not difference <= TOLERANCES[dtype]:
        raise IncompatibleError(
            f"{name} as converted: on texts of {' and '.join(map(str, lengths))} tokens its logits differ from "
            f"transformers' by {difference:.1e} of the largest logit, above {TOLERANCES[dtype]:.0e}; set "
            "lm.black_box=true, which runs transformers' implementation"
        )
