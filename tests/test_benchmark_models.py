"""The models of the benchmark: peers of one shape that compute what their names say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posbench.benchmark.models import (
    BenchmarkShape,
    Maker,
    NanoGPT,
    Plain,
    gpt2,
    nanogpt,
    ours,
    plain,
    x_transformers,
)
from posbench.benchmark.recurrences import (
    HEAD_DIM,
    Function,
    delta_rule,
    draw_inputs,
    gated_delta_rule,
    kimi_delta_attention,
)
from posbench.benchmark.steps import step_of
from posbench.model.gpt import GPT, Size
from posbench.schemes.rope import RoPE

SHAPE = BenchmarkShape(n_layers=2, d_model=64, n_heads=2, seq_len=16, batch_size=2, vocab_size=48)


@pytest.mark.parametrize("make", [ours, nanogpt, gpt2, x_transformers, plain])
def test_every_model_has_the_shape_and_learns(make: Maker) -> None:
    module, model = make(SHAPE)
    ids = torch.zeros(SHAPE.batch_size, SHAPE.seq_len, dtype=torch.long)
    assert model(ids).shape == (SHAPE.batch_size, SHAPE.seq_len, SHAPE.vocab_size)
    blocks = SHAPE.n_layers * 12 * SHAPE.d_model**2
    assert sum(parameter.numel() for parameter in module.parameters()) == pytest.approx(blocks, rel=0.15)
    step_of(make, SHAPE)()


@pytest.mark.parametrize("make", [ours, plain])
def test_a_compiled_step_has_the_loss_in_its_graph(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the compiled code of the peer did not include its loss; that of our model did."""
    shapes: list[torch.Size] = []

    def compile_function(run: Callable[[Tensor], Tensor], **_: object) -> Callable[[Tensor], Tensor]:
        def compiled(ids: Tensor) -> Tensor:
            found = run(ids)
            shapes.extend((ids.shape, found.shape))
            return found

        return compiled

    monkeypatch.setattr(torch, "compile", compile_function)
    step_of(make, SHAPE, compiled=True)()
    assert shapes == [(SHAPE.batch_size, SHAPE.seq_len + 1), ()]


def test_every_model_is_trained_on_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: models were trained on different ids, since ids were drawn after the weights."""
    seen: list[Tensor] = []
    monkeypatch.setattr(torch, "compile", lambda run, **_: lambda ids: (seen.append(ids), run(ids))[1])
    for make in (ours, nanogpt, plain):
        step_of(make, SHAPE, compiled=True)()
    assert all(torch.equal(ids, seen[0]) for ids in seen)
    assert seen[0].unique().numel() > 1


def test_the_plain_peer_is_our_model() -> None:
    """The same weights give the same logits, so that the line measures only the overhead of the framework."""
    size = Size(SHAPE.n_layers, SHAPE.d_model, SHAPE.n_heads)
    model = GPT(size, SHAPE.vocab_size, RoPE(size.shape(SHAPE.seq_len), interleaved=False), seed=0)
    peer = Plain(SHAPE)
    names = {"attention_norm": "norm", "final_norm": "norm"}
    peer.load_state_dict(
        {
            ".".join(names.get(part, part) for part in name.split(".") if part != "attention"): weight
            for name, weight in model.state_dict().items()
        }
    )
    ids = torch.randint(SHAPE.vocab_size, (SHAPE.batch_size, SHAPE.seq_len))
    torch.testing.assert_close(peer(ids), model.head(model(ids)[0]))


def test_nanogpt_is_the_architecture_of_gpt2_without_biases() -> None:
    """transformers' GPT-2 with the same weights and biases of zero computes the same logits with the exact GELU."""
    from transformers import GPT2Config, GPT2LMHeadModel

    mine = NanoGPT(SHAPE).double()
    sizes = {"n_positions": SHAPE.seq_len, "n_embd": SHAPE.d_model, "n_layer": SHAPE.n_layers}
    config = GPT2Config(
        vocab_size=SHAPE.vocab_size,
        n_head=SHAPE.n_heads,
        activation_function="gelu",
        use_cache=False,
        **sizes,
    )
    theirs = GPT2LMHeadModel(config).double().eval()
    state = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    state["transformer.wte.weight"] = state["lm_head.weight"] = mine.embedding.weight
    state["transformer.wpe.weight"], state["transformer.ln_f.weight"] = (
        mine.positions.weight,
        mine.norm.weight,
    )
    for layer, block in enumerate(mine.blocks):
        names = {"ln_1": "norm", "ln_2": "mlp_norm", "attn.c_attn": "qkv", "attn.c_proj": "out"}
        for name, own in (names | {"mlp.c_fc": "up", "mlp.c_proj": "down"}).items():
            weight = getattr(block, own).weight
            state[f"transformer.h.{layer}.{name}.weight"] = weight if "ln" in name else weight.T
    theirs.load_state_dict(state)
    ids = torch.randint(SHAPE.vocab_size, (SHAPE.batch_size, SHAPE.seq_len))
    torch.testing.assert_close(mine(ids), theirs(ids).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("peer", "channels"), [(gated_delta_rule, 1), (kimi_delta_attention, HEAD_DIM)])
def test_the_recurrences_of_transformers_compute_ours(peer: Function, channels: int) -> None:
    inputs = draw_inputs(channels)
    ours, theirs = delta_rule(*inputs), peer(*inputs)
    torch.testing.assert_close(ours, theirs)
    mine, other = (torch.autograd.grad(out.square().sum(), inputs) for out in (ours, theirs))
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
