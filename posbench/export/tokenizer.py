"""The tokenizer of a model as files that transformers loads: bytes, a BPE that was trained here, or the model's own.

Ids are those of training: text, then the token at the start of a document, then the keys and values of synthetic
sequences, which are special tokens.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from posbench.config.data import DataSettings
from posbench.data import hugging_face, subword
from posbench.data.corpus import open_corpus
from posbench.data.tokenizer import Bytes
from posbench.data.vocabulary import Vocabulary
from posbench.errors import IncompatibleError

BOS = "<bos>"


def write_own(name: str, revision: str, folder: Path) -> Any:
    """Writes the tokenizer of a pretrained model, which pads on the left, with eos if it has no pad; returns it."""
    tokenizer = copy.deepcopy(hugging_face.load_auto(name, revision))
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"  # of these, the second is saved
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_trained(data: DataSettings, cache: Path, length: int, folder: Path) -> Vocabulary:
    """Writes the tokenizer of a model that was trained on a corpus, and returns the vocabulary of the model.

    Args:
        cache: folder of tokenized corpora, which has the tokenizer unless it is one of bytes.
        length: longest text of the model in tokens, about which transformers warns.

    Raises:
        IncompatibleError: if the ids of the file would differ from those of training.
    """
    from transformers import PreTrainedTokenizerFast

    if data.tokenizer.kind == "bytes":
        encoder = byte_encoder()
        vocabulary = Vocabulary(Bytes.fingerprint, Bytes.vocab_size, data.num_keys, data.num_values, data.bos)
    else:
        corpus = open_corpus(data, cache)
        vocabulary = corpus.vocabulary
        corpus.tokenizer.save(folder)
        encoder = subword.open_file(folder / subword.FILE)
    if data.bos is None:
        names = [BOS, *symbols("key", vocabulary.key_ids), *symbols("value", vocabulary.value_ids)]
        encoder.add_special_tokens(
            [AddedToken(unused_name(encoder, name), special=True, normalized=False) for name in names]
        )
    bos = encoder.id_to_token(vocabulary.bos)
    if bos is None or encoder.get_vocab_size() > vocabulary.vocab_size:
        raise IncompatibleError(
            f"tokenizer {data.tokenizer.name or data.tokenizer.kind!r} has gaps between its ids, so that a file would give other ids than training"
        )
    encoder.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary.bos)]
    )
    loaded = PreTrainedTokenizerFast(
        tokenizer_object=encoder,
        bos_token=bos,
        eos_token=bos,
        pad_token=bos,
        padding_side="left",
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )
    loaded.save_pretrained(folder)
    return vocabulary


def byte_encoder() -> Tokenizer:
    """Returns a tokenizer whose ids are the bytes of UTF-8."""
    encoder = Tokenizer(models.BPE(subword.BYTE_OF, []))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.decoder = decoders.ByteLevel()
    return encoder


def unused_name(encoder: Tokenizer, name: str) -> str:
    """Returns `name`, with underscores after it as long as it is a token of the tokenizer, so that it gets a new id."""
    while encoder.token_to_id(name) is not None:
        name += "_"
    return name


def symbols(kind: str, ids: np.ndarray) -> list[str]:
    """Returns the names of the keys or values of synthetic sequences."""
    return [f"<{kind}_{index}>" for index in range(len(ids))]
