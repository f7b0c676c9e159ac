"""Tokenizers: exact round trips and byte counts, also for tokenizers that alter text."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from posbench.config.data import TokenizerSettings
from posbench.data import hugging_face, subword, tokenizer
from posbench.data.tokenizer import Tokenizer
from posbench.errors import ConfigError, DataError

SAMPLE = "def f(x):\n    return 'naïve'  # 日本語 is 🙂\n" * 20
TEXTS = [
    SAMPLE,
    " leading and trailing \n\n",
    "\r\n\t  mixed\rends ",
    "ﬁ e\u0301 é ½ Å",  # what Unicode normalisation would change
    "<|endoftext|> <s> spelled out </s>",
    "🙂日本語∑\u200b\x00",
    "",
]


def trained(encoder: Encoder, special: str, size: int = 400) -> Encoder:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[special], initial_alphabet=alphabet, show_progress=False
    )
    encoder.train_from_iterator([SAMPLE], trainer)
    return encoder


def byte_level(folder: Path) -> str:
    """As GPT-2, with every step that alters text: a first space, normalisation, special and added tokens."""
    encoder = Encoder(models.BPE())
    encoder.normalizer = normalizers.NFKC()
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    encoder.decoder = decoders.ByteLevel()
    trained(encoder, "<|endoftext|>").add_tokens(["日本"])
    end = encoder.token_to_id("<|endoftext|>")
    encoder.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", end)]
    )
    PreTrainedTokenizerFast(tokenizer_object=encoder, eos_token="<|endoftext|>").save_pretrained(folder)
    return str(folder)


def sentencepiece(folder: Path, scheme: str) -> str:
    """As Llama 2 (legacy) or Mistral: ▁ for a space, an added ▁ in front, and <0x0A> for bytes without a token."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"definaïtur本"]
    merges = [("d", "e"), ("de", "f"), ("▁", "def"), ("▁", "▁"), ("n", "a")]
    pieces += ["".join(merge) for merge in merges]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    encoder = Encoder(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    encoder.add_special_tokens(["<unk>", "<s>", "</s>"])
    if scheme == "legacy":
        encoder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        encoder.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    strip = decoders.Strip(" ", 1, 0)
    encoder.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    PreTrainedTokenizerFast(tokenizer_object=encoder, bos_token="<s>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["bytes", "bpe", "byte_level", "legacy", "metaspace", "tokenizer.json"])
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    match request.param:
        case "byte_level":
            config = TokenizerSettings("hugging_face", name=byte_level(tmp_path))
        case "legacy" | "metaspace" as scheme:
            config = TokenizerSettings("hugging_face", name=sentencepiece(tmp_path, scheme))
        case "tokenizer.json":
            config = TokenizerSettings("hugging_face", name=f"{byte_level(tmp_path)}/tokenizer.json")
        case kind:
            config = TokenizerSettings(kind, vocab_size=300)
    return tokenizer.make(config, [SAMPLE])


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_decoded_exactly_and_its_bytes_are_counted(built: Tokenizer, text: str) -> None:
    ids = built.encode(text)
    assert built.decode(ids) == text
    assert built.byte_lengths(ids).sum() == len(text.encode("utf-8"))
    assert ids.size == 0 or ids.max() < built.vocab_size
    assert np.array_equal(built.encode_all([text, "x"])[0], ids)


def test_prefixes_of_ids_count_the_bytes_that_they_decode_to(built: Tokenizer) -> None:
    text = SAMPLE[:60]
    ids = built.encode(text)
    whole = text.encode("utf-8")
    for n in range(len(ids) + 1):
        count = int(built.byte_lengths(ids[:n]).sum())
        assert built.decode(ids[:n]) == whole[:count].decode("utf-8", errors="replace")


def test_a_corpus_folder_is_enough_to_reopen_a_tokenizer(built: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    built.save(folder)
    again = tokenizer.reopen(folder, built.name)
    assert (again.fingerprint, again.vocab_size) == (built.fingerprint, built.vocab_size)
    assert np.array_equal(again.encode(SAMPLE), built.encode(SAMPLE))


def test_subwords_shorten_text(tmp_path: Path) -> None:
    for built in (subword.train(400, [SAMPLE]), hugging_face.load(byte_level(tmp_path))):
        assert len(built.encode(SAMPLE)) < len(SAMPLE.encode()) / 2


def test_a_bpe_depends_on_its_text_and_size() -> None:
    texts = [SAMPLE, "another text, and another one"]
    one, two = (subword.train(300, texts) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert one.vocab_size == 300
    assert subword.train(301, texts).fingerprint != one.fingerprint
    assert subword.train(300, texts[1:]).fingerprint != one.fingerprint
    with pytest.raises(ConfigError, match=r"data.tokenizer.vocab_size=256: .* at least 257"):
        subword.train(256, texts)


def test_training_text_is_capped() -> None:
    assert list(subword.head(["abc", "def", "ghi"], 5)) == ["abc", "de"]
    assert list(subword.head(["abc", "def"], 9)) == ["abc", "def"]


def test_a_tokenizer_that_loses_text_is_rejected(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "def": 1, "return": 2}
    encoder = Encoder(models.WordPiece(words, unk_token="[UNK]"))
    encoder.normalizer = normalizers.Lowercase()
    encoder.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=encoder, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"does not give text back exactly.*kind=bytes or bpe"):
        hugging_face.load(str(tmp_path))


def test_a_missing_name_fails_at_once_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"tokenizer 'no/such' has to be downloaded.*kind=bytes or bpe"):
        hugging_face.load("no/such")
    assert time.monotonic() - began < 10


def test_a_path_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not a tokenizer that can be loaded"):
        hugging_face.load(str(tmp_path))
    for text in ("", json.dumps({"version": "1.0"})):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json that can be read"):
            hugging_face.load.__wrapped__(f"{tmp_path}/tokenizer.json")
    with pytest.raises(ConfigError, match=r"needs data\.tokenizer\.name"):
        hugging_face.load("")


def test_an_error_of_the_rust_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a traceback, since this library raises plain exceptions."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise Exception("data did not match any variant of untagged enum ModelWrapper")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(DataError, match=r"can be loaded \(data did not match"):
        hugging_face.load_auto(str(tmp_path), "")
