"""Tokenizers of exported models, by the function that writes them."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.data import subword
from posbench.export.tokenizer import write_trained


def test_a_tokenizer_with_a_bos_of_its_own(tmp_path: Path) -> None:
    """Fault: the names of keys and values were one id too low if the tokenizer had a token <bos> already."""
    encoder = Tokenizer(models.BPE(subword.BYTE_OF | {"<bos>": 256}, []))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.save(str(tmp_path / "tokenizer.json"))
    for name in ("text", "out"):
        (tmp_path / name).mkdir()
    for index in range(40):
        (tmp_path / "text" / f"{index}.txt").write_text(f"{index} for self in return\n" * 20)
    own = TokenizerSettings("hugging_face", name=str(tmp_path / "tokenizer.json"))
    data = DataSettings(source="files", path=str(tmp_path / "text"), tokenizer=own)
    vocabulary = write_trained(data, tmp_path / "cache", 64, tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert loaded.bos_token_id == vocabulary.bos == 257
    assert loaded.convert_tokens_to_ids("<key_0>") == vocabulary.key_ids[0]
    assert loaded.convert_tokens_to_ids("<value_0>") == vocabulary.value_ids[0]
