"""A model under another scheme: the same parameters, registered once, trained through any wrapper."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from posbench.extensions.log_n import LogNScaling
from posbench.kernels.dispatcher import KernelDispatcher
from posbench.model.gpt import GPT, Size
from posbench.position.extension import ExtensionContext
from posbench.runtime.distributed import World, parallelize
from posbench.schemes.t5 import T5Bias
from posbench.training.loss_module import LossModule

SIZE = Size(n_layers=2, d_model=16, n_heads=2)
SHAPE = SIZE.shape(8)


def model() -> GPT:
    torch.manual_seed(0)
    return GPT(SIZE, 50, T5Bias(SHAPE), seed=0)


def extended(trained: GPT) -> GPT:
    return trained.with_scheme(LogNScaling(trained.scheme, ExtensionContext(SHAPE, 24)))


def batch() -> tuple[torch.Tensor, ...]:
    ids = torch.randint(50, (2, 25), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], torch.arange(48), ids[:, 1:].flatten()


def test_a_view_shares_all_parameters_and_leaves_the_model_alone() -> None:
    trained = model()
    names, (ids, *_) = list(trained.state_dict()), batch()
    before = trained(ids)[0]
    view = extended(trained)
    assert isinstance(view.scheme, LogNScaling)
    assert isinstance(trained.scheme, T5Bias)
    assert list(trained.state_dict()) == names
    assert [id(one) for one in view.parameters()] == [id(one) for one in trained.parameters()]
    assert len(list(LossModule(view, KernelDispatcher("auto")).parameters())) == len(names)
    assert torch.equal(trained(ids)[0], before)
    assert not torch.equal(view(ids)[0], before)
    with torch.no_grad():
        trained.scheme.bias_KH[0] += 1
    assert not torch.equal(trained(ids)[0], before)
    assert torch.equal(view(ids)[0], extended(trained)(ids)[0])


def step(module: torch.nn.Module, trained: GPT) -> list[torch.Tensor]:
    """The loss and the gradients of all parameters of the trained model."""
    loss = module(*batch())
    loss.backward()
    gradients = [parameter.grad for parameter in trained.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [loss.detach(), *gradients]


@pytest.fixture
def one_process() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("how", ["compiled", "ddp"])
def test_a_view_trains_through_every_wrapper(how: str, one_process) -> None:
    plain, trained = model(), model()
    expected = step(LossModule(extended(plain), KernelDispatcher("auto")), plain)
    module = LossModule(extended(trained), KernelDispatcher("auto"))
    if how == "compiled":
        wrapped = torch.compile(module, backend="aot_eager", fullgraph=True)
    else:
        wrapped = parallelize(module, World(0, 2))
    for one, other in zip(step(wrapped, trained), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
