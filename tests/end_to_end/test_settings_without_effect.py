"""Settings that change nothing: one line that names the setting with which they would, before torch is imported.

Those of a launcher, tracker or optimizer that is not chosen, of another command, in whose place a grid has values, or of
a trained model beside a pretrained one were accepted in silence.
"""

import pytest
from test_bad_values import MINIATURE, PRETRAINED, folder, posbench  # noqa: F401

# Command and overrides -> a part of the error line.
NO_EFFECT = {
    (
        "train",
        "train.optimizer=adamw",
        "train.muon_lr=0.5",
    ): "train.muon_lr changes nothing with train.optimizer adamw",
    (
        "train",
        "train.synthetic_fraction=0",
        "train.synthetic_task=copy",
    ): "train.synthetic_task changes nothing",
    (
        "train",
        "train.synthetic_fraction=0",
        "train.query_fraction=0.5",
    ): "train.query_fraction changes nothing with train.synthetic_fraction 0.0: remove it, or give "
    "train.synthetic_fraction a number above 0",
    ("train", "train.synthetic_task=mqar", "train.query_fraction=0.5"): "with train.synthetic_task mqar",
    (*MINIATURE, "train.optimizer=adamw", "+grid.train.muon_lr=[0.1,0.2]"): "train.muon_lr changes nothing",
    (*MINIATURE, "+grid.train.optimizer=[adamw]", "train.muon_lr=0.5"): "train.optimizer adamw",
    (
        *MINIATURE,
        "+grid.train.query_fraction=[0.5,1]",
        "+grid.train.synthetic_fraction=[0]",
    ): "query_fraction",
    (
        *MINIATURE,
        "+grid.train.steps=[8]",
        "train.steps=9",
    ): "train.steps changes nothing, because grid.train.steps",
    (*MINIATURE, "train.seed=3"): "train.seed changes nothing, because grid.seed has values in its place",
    (*MINIATURE, "grid.size=[tiny]", "size=small"): "size changes nothing, because grid.size",
    (*MINIATURE, "grid.size=[tiny]", "size.n_layers=1"): "size changes nothing, because grid.size",
    (*MINIATURE, "grid.lr=[0.1,0.2]", "train.optimizer=adamw", "train.lr=0.3"): "because grid.lr",
    ("train", "runtime.slurm.workers=3"): "runtime.slurm.workers changes nothing with runtime.launcher local",
    (*MINIATURE, "runtime.slurm.partition=gpu"): "remove it, or give runtime.launcher slurm",
    (*MINIATURE, "+runtime.slurm.sbatch.qos=low"): "runtime.slurm.sbatch changes nothing",
    (*MINIATURE, "runtime=ray", "runtime.slurm.gpus=2"): "changes nothing with runtime.launcher ray",
    ("evaluate", "runtime.ray.address=auto"): "runtime.ray.address changes nothing",
    (*MINIATURE, "runtime=slurm", "runtime.num_workers=2"): "with runtime.launcher slurm",
    (
        *MINIATURE,
        "runtime.launcher=inline",
        "runtime.num_workers=2",
    ): "remove it, or give runtime.launcher local",
    (
        *MINIATURE,
        "runtime.launcher=inline",
        "runtime.workers_per_gpu=2",
    ): "runtime.workers_per_gpu changes nothing",
    (*MINIATURE, "runtime.device=cpu", "runtime.workers_per_gpu=2"): "with runtime.device cpu",
    (*MINIATURE, "runtime.num_workers=2", "runtime.workers_per_gpu=2"): "and runtime.num_workers 2",
    (*MINIATURE, "runtime.tracker=tensorboard", "runtime.wandb_mode=offline"): "runtime.tracker tensorboard",
    (*MINIATURE, "runtime.tracker=none", "runtime.wandb_project=mine"): "runtime.tracker wandb or trackio",
    (
        "train",
        "runtime.max_tokens_per_batch=9",
    ): "changes nothing in posbench train, it is for posbench evaluate",
    ("train", "runtime.num_workers=2"): "runtime.num_workers changes nothing in posbench train",
    ("evaluate", "runtime.checkpoint_minutes=9"): "changes nothing in posbench evaluate",
    ("evaluate", "runtime.compile=true"): "runtime.compile changes nothing in posbench evaluate",
    ("search", "runtime.launcher=inline"): "runtime.launcher changes nothing in posbench search",
    (*PRETRAINED, "train.seq_len=32"): "train changes nothing with lm.kind hugging_face",
    (*PRETRAINED, "data.tokenizer.kind=bpe"): "data.tokenizer changes nothing with lm.kind hugging_face",
    (*PRETRAINED, "data.bos=3"): "data.bos changes nothing with lm.kind hugging_face",
    (*PRETRAINED, "scheme=alibi"): "scheme changes nothing with lm.kind hugging_face",
    ("search", *PRETRAINED[1:], "size=small"): "size changes nothing with lm.kind hugging_face",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    NO_EFFECT.items(),
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, tuple) else "",
)
def test_a_setting_that_changes_nothing(capsys, arguments, expected):
    assert expected in posbench(capsys, *arguments)
