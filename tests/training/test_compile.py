"""Compiled training: one graph, compiled once, with the numbers of uncompiled training; the reason where it fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from posbench.config.schema import RuntimeSettings
from posbench.errors import ConfigError, IncompatibleError, format_error
from posbench.runtime.distributed import World
from posbench.runtime.oom import is_end_of_device, is_out_of_memory
from posbench.sweep import launch_local, run, worker
from posbench.training import compile
from posbench.training.muon import Muon, muon_update
from posbench.training.trainer import Trainer

COMPILE = RuntimeSettings(device="cpu", compile=True)


@pytest.fixture(autouse=True)
def fast_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo and autograd trace as in use; only the generation of device code is skipped."""
    monkeypatch.setattr(compile, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def check(small_trainer: Callable[..., Trainer], folder: Path, scheme: str, **train: object) -> None:
    plain = small_trainer(folder / "plain", scheme, RuntimeSettings(device="cpu", compile=False), **train)
    trainer = small_trainer(folder / "compiled", scheme, COMPILE, **train)
    counters.clear()
    graphs = []
    for step in range(3):
        loss = trainer.step(step)
        torch.testing.assert_close(loss, plain.step(step), rtol=0, atol=1e-5)
        if step == 1:
            trainer.validate()
        graphs.append(counters["stats"]["unique_graphs"])
    assert trainer.loss_module.status == "one graph"
    # The loss module and the update of Muon; then validation, once.
    assert graphs == [2, 3, 3]
    # Optimizers normalise gradients, and with a small gradient its rounding errors.
    torch.testing.assert_close(weights(trainer), weights(plain), rtol=0, atol=2e-3)


def test_one_graph_with_the_same_numbers(small_trainer, tmp_path) -> None:
    check(small_trainer, tmp_path, "rope", grad_accum_steps=2)


def test_masks_are_in_the_graph(small_trainer, tmp_path) -> None:
    check(small_trainer, tmp_path, "window")


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [
        "alibi",
        "t5",
        "shaw",
        "learned",
        "cope",
        "key_norm",
        "log_n",
        "tupe",
        "dape",
        "bigbird",
        "randomized_rope",
    ],
)
def test_other_schemes(small_trainer, tmp_path, scheme) -> None:
    """In one layer: a second is the same code. dape_v2, which is dape with a wider kernel, compiles for 20 seconds."""
    check(small_trainer, tmp_path, scheme, n_layers=1)


def test_a_whole_run_and_its_metadata(small_trainer, tmp_path) -> None:
    metadata = [
        small_trainer(tmp_path / str(runtime.compile), runtime=runtime).run()
        for runtime in (COMPILE, RuntimeSettings(device="cpu", compile=False), RuntimeSettings(device="cpu"))
    ]
    assert [one["compiled"] for one in metadata] == ["one graph", "false", "false"]
    for one, other in zip(metadata[0]["log_history"], metadata[1]["log_history"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert metadata[1]["log_history"] == metadata[2]["log_history"]


def test_a_graph_break_is_an_error_or_runs_uncompiled(small_trainer, tmp_path, monkeypatch) -> None:
    with pytest.raises(IncompatibleError, match=r"^runtime.compile=true.*not one graph.*auto or false$"):
        small_trainer(tmp_path, "randomized_alibi", COMPILE).step(0)
    # As under `auto` on a GPU.
    monkeypatch.setattr("posbench.training.trainer.should_compile", lambda *arguments: True)
    auto = small_trainer(tmp_path, "randomized_alibi", RuntimeSettings(device="cpu"))
    plain = small_trainer(tmp_path, "randomized_alibi", RuntimeSettings(device="cpu", compile=False))
    assert torch.equal(auto.step(0), plain.step(0))
    assert auto.loss_module.status.startswith("not compiled (")


def test_dense_runs_uncompiled(small_trainer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("posbench.training.trainer.should_compile", lambda *arguments: True)
    auto = small_trainer(tmp_path, "cope", RuntimeSettings(device="cpu"))
    counters.clear()
    auto.step(0)
    assert auto.kernel.ran == "dense"
    assert auto.loss_module.status == "not compiled (dense would be code for every few rows)"
    # The update of Muon alone.
    assert counters["stats"]["unique_graphs"] == 1


def test_a_backward_pass_that_does_not_compile_runs_uncompiled(small_trainer, tmp_path, monkeypatch) -> None:
    """The backward pass is compiled when gradients are first computed, after the loss."""

    def fails(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise ValueError("tiles do not fit")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph), bw_compiler=fails)
    monkeypatch.setattr(compile, "BACKEND", backend)
    with pytest.raises(IncompatibleError, match=r"^runtime.compile=true.*tiles do not fit"):
        small_trainer(tmp_path, "rope", COMPILE).step(0)
    monkeypatch.setattr("posbench.training.trainer.should_compile", lambda *arguments: True)
    auto = small_trainer(tmp_path, "rope", RuntimeSettings(device="cpu"))
    plain = small_trainer(tmp_path, "rope", RuntimeSettings(device="cpu", compile=False))
    for step in range(2):
        assert torch.equal(auto.step(step), plain.step(step))
    assert auto.loss_module.status.startswith("not compiled (ValueError: tiles do not fit")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_steps_do_not_synchronise_and_use_cuda_graphs(small_trainer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compile, "BACKEND", "inductor")
    for scheme in ("rope", "t5", "window"):
        trainer = small_trainer(tmp_path / scheme, scheme, RuntimeSettings(device="cuda"))
        plain = small_trainer(tmp_path / scheme, scheme, RuntimeSettings(device="cuda", compile=False))
        for step in range(6):
            torch.cuda.set_sync_debug_mode("error" if step > 3 else "default")
            try:
                losses = trainer.step(step), plain.step(step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
        assert trainer.loss_module.status == "one graph, CUDA graphs"
        trainer.prefetcher.close()
        plain.prefetcher.close()


def test_the_setting() -> None:
    assert compile.should_compile("auto", torch.device("cuda"))
    assert not compile.should_compile("auto", torch.device("cpu"))
    assert not compile.should_compile("auto", torch.device("cuda"), world_size=2), (
        "many graphs, with `dense` thousands"
    )
    assert compile.should_compile(True, torch.device("cuda"), world_size=2)
    with pytest.raises(ConfigError, match=r"runtime.compile 'yes': give auto, true or false"):
        run.check_runtime(RuntimeSettings(device="cpu", compile="yes"))


@pytest.mark.parametrize("shapes", [[(8, 8), (8, 8), (24, 8)], [(4, 16)]])
def test_compiled_muon_is_muon_and_a_new_learning_rate_compiles_nothing(shapes) -> None:
    def optimized(update: Callable | None) -> list[torch.Tensor]:
        draw = torch.Generator().manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
        muon = Muon([(one, 3 if len(one) == 24 else 1) for one in parameters], 0.1, update=update)
        for step in range(4):
            for one in parameters:
                one.grad = torch.randn(one.shape, generator=draw)
            muon.param_groups[0]["lr"] = 0.1 / (1 + step)
            muon.step()
            assert step == 0 or update is None or counters["stats"]["unique_graphs"] == 1
        return parameters

    counters.clear()
    for one, other in zip(optimized(None), optimized(compile.compile_module(muon_update)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bfloat16_is_close_to_float32(small_trainer, tmp_path, dtype) -> None:
    """After 20 steps; bfloat16 rounds to 1/256 of a number."""
    metadata = small_trainer(tmp_path / dtype, steps=20, dtype=dtype).run()
    exact = small_trainer(tmp_path / "exact", steps=20).run()
    for one, other in zip(metadata["log_history"], exact["log_history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02 if dtype == "bfloat16" else 1e-9)


def test_several_workers_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    one, several = RuntimeSettings(), RuntimeSettings(workers_per_gpu=2)
    assert launch_local.devices(one, 9) == ["cuda:0", "cuda:1"]
    assert launch_local.devices(several, 9) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert launch_local.devices(several, 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert launch_local.devices(RuntimeSettings(workers_per_gpu=2, num_workers=3), 9)[2] == "cuda:0"


def test_a_compiler_error_is_formatted_as_one_line() -> None:
    error = RuntimeError(
        "backend='inductor' raised:\nOutOfResources: shared  memory\n\nSet TORCHDYNAMO_VERBOSE=1"
    )
    assert format_error(error) == "RuntimeError: OutOfResources: shared memory"
    assert format_error(KeyError()) == "KeyError"


def test_workers_on_one_chosen_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: runtime.device=cuda:1 started a worker on that GPU for every core of the machine."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch_local.devices(RuntimeSettings(device="cuda:1"), 9) == ["cuda:1"]
    assert launch_local.devices(RuntimeSettings(device="cuda:1", workers_per_gpu=2), 9) == ["cuda:1"] * 2


@pytest.mark.parametrize(
    ("device", "local_rank", "message"),
    [("cuda:0", 0, "give runtime.device=cuda or cpu"), ("auto", 2, "process 2 of this machine has no GPU")],
)
def test_ranks_without_a_gpu_of_their_own(monkeypatch, device: str, local_rank: int, message: str) -> None:
    """Fault: several processes with cuda:0 trained on the CPU without a word, and too many ended in a traceback."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(worker, "world", lambda: World(local_rank, 3, local_rank))
    with pytest.raises(ConfigError, match=message):
        worker.set_device(RuntimeSettings(device=device))
    assert worker.set_device(RuntimeSettings(device="cpu")).device == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be",
        "CUDNN_STATUS_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
        "CUDA driver error: out of memory",
    ],
)
def test_memory_that_runs_out_outside_the_allocator(error: str) -> None:
    """Fault: a GPU that several workers had filled was a traceback, without a smaller batch or advice."""
    assert is_out_of_memory(RuntimeError(error))
    assert not is_end_of_device(RuntimeError(error))


def test_memory_is_short_for_the_first_pass(small_trainer, tmp_path, monkeypatch) -> None:
    """Fault: the first pass of one sequence writes out its logits, and ended trainings that fit without compilation."""

    def fails(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(compile, "fill_caches", fails)
    monkeypatch.setattr("posbench.training.trainer.should_compile", lambda *arguments: True)
    trainer = small_trainer(tmp_path, "rope", RuntimeSettings(device="cpu"))
    trainer.step(0)
    assert "runs out of memory" in trainer.loss_module.status


def test_an_optimizer_that_does_not_compile_runs_uncompiled(monkeypatch) -> None:
    """Fault: without a compiler the loss fell back, and the update of Muon ended every training."""

    def fails(*arguments: object) -> None:
        raise torch._dynamo.exc.InternalTorchDynamoError("no compiler")

    monkeypatch.setattr(compile, "compile_module", lambda run: fails)
    done: list[int] = []
    update = compile.CompiledUpdate(done.append, required=False)
    update(1)
    update(2)
    assert done == [1, 2]
    with pytest.raises(IncompatibleError, match="the optimizer cannot be compiled here"):
        compile.CompiledUpdate(done.append, required=True)(3)
