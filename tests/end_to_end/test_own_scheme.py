"""A new scheme from outside the repository: one Python file and one yaml file."""

import pandas as pd

PYTHON = '''
"""A penalty on the square root of the distance."""

from posbench.position.scheme import PositionScheme, ModelShape, AttentionInputs, Traits
from posbench.position.biases import DistanceBias, AttentionBias


class Root(PositionScheme):
    traits = Traits(relative=True, capabilities=frozenset({"positions"}))

    def __init__(self, shape: ModelShape, strength: float = 1.0) -> None:
        super().__init__()
        self.strength, self.heads = strength, shape.n_heads

    def attention_bias(self, inputs: AttentionInputs) -> AttentionBias:
        return DistanceBias(lambda n: -self.strength * n.double().sqrt().expand(self.heads, *n.shape), cache_owner=self)
'''
YAML = "name: root\nbuild:\n  _target_: my_schemes.root.Root\n  strength: 0.5\n"


def test_it_is_trained_evaluated_tabulated_and_drawn(script, tmp_path, monkeypatch):
    (tmp_path / "my_schemes").mkdir()
    (tmp_path / "my_schemes" / "root.py").write_text(PYTHON)
    (tmp_path / "configs" / "scheme").mkdir(parents=True)
    (tmp_path / "configs" / "scheme" / "root.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(tmp_path)
    result = script(
        "sweep",
        "experiment=miniature",
        "runtime.launcher=inline",
        f"hydra.searchpath=[file://{tmp_path}/configs]",
        "allow=[my_schemes]",
        "grid.scheme=[root,alibi]",
        "grid.extended_schemes=[root]",
        "grid.extension=[rerope,yarn]",
        "figures=[fixed_targets]",
    )
    assert result.code == 0, result
    assert "left out: root + yarn" in result.out
    rows = pd.read_parquet(tmp_path / "results" / "miniature" / "rows.parquet")
    assert set(rows.loc[rows["scheme"] == "root", "extension"]) == {"none", "rerope"}
    table = tmp_path / "results" / "miniature" / "tables" / "perplexity-fixed_targets-bits_per_byte.md"
    assert "root + rerope" in table.read_text()
    assert (tmp_path / "results" / "miniature" / "figures" / "fixed_targets.png").exists()


def test_by_its_target_without_a_yaml_file(script, tmp_path, monkeypatch):
    (tmp_path / "my_schemes").mkdir()
    (tmp_path / "my_schemes" / "root.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    target = "scheme.build._target_=my_schemes.root.Root"
    build = ("allow=[my_schemes]", target, "+scheme.build.strength=2.0")
    small = (
        "size.n_layers=1",
        "size.d_model=8",
        "size.n_heads=2",
        "train.steps=2",
        "train.seq_len=8",
        "scheme.name=root",
    )
    # The target is merged with the settings of the file, so a scheme without settings is chosen.
    result = script("train", "scheme=nope", *build, *small)
    assert result.code == 0, result
    assert "root, tiny, length 8, seed 0" in result.out
