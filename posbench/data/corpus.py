"""A corpus: three splits of documents as memory-mapped tokens, known by what they say, not where they lie."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from posbench.config.data import DataSettings, TokenizerSettings
from posbench.data import build, hugging_face, shard, tokenizer
from posbench.data.files import Files
from posbench.data.hub import Hub
from posbench.data.shard import Shard
from posbench.data.source import Source, digest
from posbench.data.sources import PinnedSources
from posbench.data.splits import SPLITS
from posbench.data.stdlib import StandardLibrary
from posbench.data.tokenizer import Tokenizer
from posbench.data.vocabulary import Vocabulary
from posbench.errors import DataError, LengthError, unknown

FORMAT = "1"  # of the folder: another number makes every corpus another one

SOURCES: dict[str, Callable[[DataSettings], Source]] = {
    "sources": PinnedSources,
    "stdlib": StandardLibrary,
    "files": Files,
    "hub": Hub,
}


@dataclass(frozen=True, eq=False)
class Corpus:
    name: str
    fingerprint: str
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    folder: Path

    def split(self, name: str) -> Shard:
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return self._shards[name]

    @cached_property
    def _shards(self) -> dict[str, Shard]:
        return {split: shard.read(self.folder, split) for split in SPLITS}

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        """The bytes of text that each id stands for: none for the bos, keys and values."""
        return self._byte_table[ids]

    @cached_property
    def _byte_table(self) -> np.ndarray:
        table = np.zeros(self.vocabulary.vocab_size, dtype=np.int64)
        table[: self.tokenizer.vocab_size] = self.tokenizer.byte_lengths(np.arange(self.tokenizer.vocab_size))
        return table


def open_corpus(config: DataSettings, cache: Path, progress: build.Say | None = None) -> Corpus:
    """The corpus of these settings, built under cache/<fingerprint>/ if it is not there yet.

    Where it is there, neither the text nor what it came from is looked at: the folder can be carried to another
    machine, and data.fingerprint opens it there even if that machine could not compute the fingerprint.
    """
    key = config.fingerprint or fingerprint(config)
    folder = Path(cache) / key
    build.ensure(folder, partial(_parts, config), progress or build.aloud, config.bos)
    saved = tokenizer.reopen(folder, build.read_meta(folder)["tokenizer"])
    vocabulary = Vocabulary(
        saved.fingerprint, saved.vocab_size, config.num_keys, config.num_values, config.bos
    )
    return Corpus(config.name, key, vocabulary, saved, folder)


def with_model_tokenizer(config: DataSettings, model: str) -> DataSettings:
    """The same documents as a pretrained model reads them: by its tokenizer, behind its own bos, with no ids besides.

    A Hugging Face tokenizer that the settings name is taken for the model's.
    """
    given = config.tokenizer
    name = given.name if given.kind == "hugging_face" and given.name else model
    own = TokenizerSettings("hugging_face", name=name)
    return replace(config, tokenizer=own, bos=hugging_face.beginning(name))


def fingerprint(config: DataSettings) -> str:
    """What the shards will hold: a function of documents, splits and tokenizer, and of nothing else."""
    own = [] if config.bos is None else [f"bos-{config.bos}"]
    return digest([FORMAT, open_source(config).fingerprint(), tokenizer.tokenizer_id(config.tokenizer), *own])


def _parts(config: DataSettings) -> tuple[Source, Tokenizer]:
    if config.fingerprint and config.fingerprint != (found := fingerprint(config)):
        raise DataError(
            f"data={config.name} has fingerprint {found} here, data.fingerprint asks for "
            f"{config.fingerprint}: copy that folder into the cache, or remove the setting"
        )
    source = open_source(config)
    texts = (document.text for document in source.documents("train"))
    return source, tokenizer.make(config.tokenizer, texts)


def open_source(config: DataSettings) -> Source:
    if config.source not in SOURCES:
        raise unknown("data.source", config.source, SOURCES)
    return SOURCES[config.source](config)


def check_corpus(corpus: Corpus, length: int) -> None:
    """Raise LengthError if a split of the corpus is too short to train on sequences of `length` tokens."""
    for split in ("train", "validation"):
        if len(corpus.split(split).tokens) <= length:
            raise LengthError(
                f"train.seq_len {length} is longer than the {split} split of {corpus.name} "
                f"({len(corpus.split(split).tokens)} tokens): choose a shorter one or other data"
            )
