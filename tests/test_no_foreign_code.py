"""Files of others are read as data: no pickles, and no code from the folder of a model or a tokenizer."""

import ast
import json
from pathlib import Path

import pytest

from posbench.config.schema import LMSettings
from posbench.data import hugging_face
from posbench.errors import DataError
from posbench.lm.hf_config import inspect_pretrained

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "posbench").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
NEVER_CALLED = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pd.read_pickle",
    "torch.load",
}
NEVER_IMPORTED = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
SAFE = {"allow_pickle": "False", "weights_only": "True", "trust_remote_code": "False"}
FOREIGN = 'from pathlib import Path\nPath(r"{folder}", "ran").touch()\nclass Mine: ...\n'


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_read_data_only(path):
    """One call of AutoTokenizer lacked trust_remote_code=False; numpy.load has allow_pickle=False by default."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & NEVER_IMPORTED, ast.unparse(node)
        if isinstance(node, ast.Call):
            called, text = ast.unparse(node.func), ast.unparse(node)
            given = {one.arg: ast.unparse(one.value) for one in node.keywords}
            assert called not in NEVER_CALLED, text
            assert not (called.startswith("subprocess.") and "shell" in given), text
            assert all(given.get(key, value) == value for key, value in SAFE.items()), text
            if called.startswith("Auto") and called.endswith((".from_pretrained", ".from_config")):
                assert "trust_remote_code" in given, text


def with_code(folder: Path, name: str, **content: object) -> Path:
    """Writes a json file that asks for the class Mine of foreign.py in the same folder."""
    folder.mkdir(exist_ok=True)
    (folder / "foreign.py").write_text(FOREIGN.format(folder=folder))
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """Answers `y` to every question on stdin."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("value", [["foreign.Mine", None], ["foreign.Mine", "foreign.Mine"], "foreign.Mine"])
@pytest.mark.parametrize("own_class", ["Mine", "PreTrainedTokenizerFast", None])
def test_a_tokenizer_runs_no_code_of_its_folder(own_class, value, tmp_path):
    """A tokenizer_config.json with `auto_map` prompted on stdin for 15 s, and its Python ran after `y`."""
    content = {"auto_map": {"AutoTokenizer": value}} | ({"tokenizer_class": own_class} if own_class else {})
    folder = with_code(tmp_path / "theirs", "tokenizer_config.json", **content)
    for load in (hugging_face.load, hugging_face.bos_id):
        with pytest.raises(DataError, match=r"^[^\n]+$") as error:
            load(str(folder))
        assert "trust_remote_code" not in str(error.value)
    assert not (folder / "ran").exists()


def test_a_configuration_runs_no_code_for_its_tokenizer(tmp_path):
    folder = with_code(
        tmp_path / "theirs",
        "config.json",
        model_type="odd",
        auto_map={"AutoConfig": "foreign.Mine", "AutoTokenizer": ["foreign.Mine", None]},
    )
    with pytest.raises(DataError, match=r"^[^\n]+$"):
        hugging_face.load(str(folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "odd"])
def test_a_model_runs_no_code_of_its_folder(model_type, tmp_path):
    """With a configuration of transformers' own, `auto_map` for the model alone still reached the folder's Python."""
    auto_map = {"AutoModelForCausalLM": "foreign.Mine", "AutoModel": "foreign.Mine"}
    auto_map |= {"AutoConfig": "foreign.Mine"} if model_type == "odd" else {}
    folder = with_code(tmp_path / "theirs", "config.json", model_type=model_type, auto_map=auto_map)
    with pytest.raises(DataError, match=r"^[^\n]+$"):
        inspect_pretrained(LMSettings("hugging_face", str(folder)))
    assert not (folder / "ran").exists()
