"""Weight decay by the role of a parameter."""

import pytest
import torch
from torch import nn

from posbench.config import hydra_app
from posbench.config.schema import TrainSettings
from posbench.model.gpt import GPT, Size, build_scheme
from posbench.position.compose import Stack
from posbench.position.scheme import ModelShape, PositionScheme
from posbench.training.muon import Muon, muon_update
from posbench.training.optimizers import build_optimizers, decayed_parameters

SIZE, TRAIN_LEN = Size(n_layers=2, d_model=32, n_heads=4), 16
# The parameters of schemes that decay.
DECAYED = {
    "asentmax": "beta_LHW gamma_LHW",
    "cable": "weight_LHW",
    "carope": "weight_LHW",
    "cope": "vector_LPD",
    "dape": "in_LKCN out_LHKN",
    "dape_v2": "in_LKCN out_LHKN",
    "deberta": "row_NW key_LWHD query_LWHD",
    "deberta_log": "row_NW key_LWHD query_LWHD",
    "fire": "in_LK out_LHK",
    "floater": "into_VW out_WW",
    "fox": "weight_LHW",
    "gated_attention": "weight_LGW",
    "gated_deltanet": "conv_LCN decay_LHW beta_LHW gate_LCW",
    "gated_deltanet_hybrid": "members.0.conv_LCN members.0.decay_LHW members.0.beta_LHW members.0.gate_LCW members.1.weight_LGW",
    "grape_a": "v_LHD",
    "grape_a_key_gated": "u_LHD",
    "grape_m_contextual": "weight_L1W",
    "inkling": "weight_LRW profile_LRN",
    "kda": "conv_LCN decay_down_LDW decay_up_LCD gate_down_LDW gate_up_LCD beta_LHW",
    "kimi_linear": "members.0.conv_LCN members.0.decay_down_LDW members.0.decay_up_LCD members.0.gate_down_LDW members.0.gate_up_LCD members.0.beta_LHW",
    "learned": "row_NW",
    "mamba2": "conv_LCN step_LHW gate_LCW",
    "mamba2_hybrid": "members.0.conv_LCN members.0.step_LHW members.0.gate_LCW",
    "path": "down_LRW up_LWR tap_LWN beta_LHW",
    "qwen3_next": "weight_LGW",
    "randomized_learned": "members.0.row_NW",
    "repo": "gate_LUW content_LUW final_LHU",
    "selective_rope": "down_LRW up_LPR tap_LPN",
    "shaw": "key_LKD value_LKD",
    "shifted_learned": "row_NW",
    "transformer_xl": "key_LWHD",
    "tupe": "row_NW query_WHD key_WHD",
    "tupe_r": "row_NW query_WHD key_WHD",
    "wall": "weight_LGW",
}


def model_of(scheme: PositionScheme) -> GPT:
    return GPT(SIZE, 50, scheme, 0)


def test_decayed_parameters_of_every_scheme() -> None:
    """Biases and gains stacked by layer, (L, H), decayed: the rule was the number of dimensions."""
    found = {}
    for name, settings in hydra_app.load_group("scheme").items():
        scheme = build_scheme(settings["build"], SIZE.shape(TRAIN_LEN), 0)
        decayed = decayed_parameters(model_of(scheme))
        names = [key for key, parameter in scheme.named_parameters() if id(parameter) in decayed]
        if names:
            found[name] = " ".join(sorted(names))
    assert found == {name: " ".join(sorted(names.split())) for name, names in DECAYED.items()}


class Mine(PositionScheme):
    """A scheme as a user writes one: gains by layer and head, and a linear layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gain_LH = nn.Parameter(torch.ones(shape.n_layers, shape.n_heads))
        self.layer = nn.Linear(shape.d_model, shape.n_heads)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_without_gradients_decays_by_role(optimizer: str, wrapped: bool) -> None:
    """Under Muon its matrices did not decay."""
    shape = SIZE.shape(TRAIN_LEN)
    model = model_of(Stack(shape, [Mine(shape)]) if wrapped else Mine(shape))
    settings = TrainSettings(optimizer=optimizer, weight_decay=0.5, lr=0.1, muon_lr=0.2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for each, _ in build_optimizers(model, settings):
        each.step()
    for name, parameter in model.named_parameters():
        of_muon = optimizer == "muon" and name.startswith("blocks.") and parameter.dim() == 2
        rate = 0.2 if of_muon else 0.1
        decays = name.endswith(".weight") and "norm" not in name
        torch.testing.assert_close(parameter, before[name] * (1 - 0.5 * rate if decays else 1))


@pytest.mark.parametrize("compiled", [False, True])
def test_decay_of_muon_is_decoupled(compiled: bool) -> None:
    """A step with decay is a step without it plus the decay, also with a rate on the device as compiled code has it."""
    start, gradient = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).unbind()
    ends = []
    for decay in (0.0, 0.1):
        parameter = nn.Parameter(start.clone())
        parameter.grad = gradient.clone()
        update = muon_update if compiled else None
        Muon([(parameter, 1)], 0.02, weight_decay=decay, update=update).step()
        ends.append(parameter.detach())
    torch.testing.assert_close(ends[1], ends[0] - 0.02 * 0.1 * start)
