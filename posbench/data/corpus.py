"""Corpora: three splits of documents as memory-mapped tokens, identified by their content."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from posbench.config.checks import check_fingerprint
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
from posbench.data.vocabulary import Vocabulary, check_bos
from posbench.errors import DataError, LengthError, unknown

FORMAT = "1"  # of the folder; part of every fingerprint

SOURCES: dict[str, Callable[[DataSettings], Source]] = {
    "sources": PinnedSources,
    "stdlib": StandardLibrary,
    "files": Files,
    "hub": Hub,
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """A tokenized corpus on disk.

    Attributes:
        name: label in rows, tables and figures.
        fingerprint: 16 hexadecimal digits, a hash of documents, splits and tokenizer.
        vocabulary: all ids of a model that is trained on it: text, bos, keys and values.
        tokenizer: of the text.
        folder: its files, in the cache.
        evaluated_split: name of the split that tasks read.
    """

    name: str
    fingerprint: str
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    folder: Path
    evaluated_split: str = "test"

    @property
    def evaluated(self) -> Shard:
        """The split that tasks read."""
        return self.split(self.evaluated_split)

    def split(self, name: str) -> Shard:
        """Returns the split `name`: "train", "validation" or "test".

        Raises:
            ConfigError: for another name.
        """
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
        return self._shards[name]

    @cached_property
    def _shards(self) -> dict[str, Shard]:
        return {split: shard.read(self.folder, split) for split in SPLITS}

    def byte_lengths(self, ids: np.ndarray) -> np.ndarray:
        """Returns the bytes of text of each id, in the shape of `ids`; 0 for bos, keys and values."""
        return self._byte_table[ids]

    @cached_property
    def _byte_table(self) -> np.ndarray:
        table = np.zeros(self.vocabulary.vocab_size, dtype=np.int64)
        table[: self.tokenizer.vocab_size] = self.tokenizer.byte_lengths(np.arange(self.tokenizer.vocab_size))
        return table


def open_corpus(config: DataSettings, cache: Path, progress: build.Say | None = None) -> Corpus:
    """Opens a corpus, and builds it as cache/<fingerprint>/ if it is missing.

    An existing folder is opened without reading its text. It can be copied to another machine, where data.fingerprint
    opens it even if the fingerprint cannot be computed there.

    Args:
        config: settings of `data`.
        cache: folder of all corpora.
        progress: called with each line for the user, by default printed to stderr.

    Raises:
        DataError: if the corpus of data.fingerprint has another tokenizer or bos than the settings.
    """
    check_fingerprint(config)
    key = fingerprint(config)
    folder = Path(cache) / key
    build.ensure(folder, partial(_parts, config), progress or build.print_to_stderr, config.bos)
    saved = tokenizer.reopen(folder, build.read_meta(folder)["tokenizer"])
    vocabulary = Vocabulary(
        saved.fingerprint, saved.vocab_size, config.num_keys, config.num_values, config.bos
    )
    corpus = Corpus(config.name, key, vocabulary, saved, folder)
    if config.fingerprint:
        _check_pinned(config, corpus)
    return corpus


def _check_pinned(config: DataSettings, corpus: Corpus) -> None:
    given, found = config.tokenizer, corpus.tokenizer
    same = (
        found.name == f"bpe-{given.vocab_size}"
        if given.kind == "bpe"
        else found.fingerprint == tokenizer.tokenizer_id(given)
    )
    if not same:
        raise DataError(
            f"the corpus of data.fingerprint {config.fingerprint} has the tokenizer {found.name}, not that of the "
            f"settings ({given.kind} {given.name or given.vocab_size}): give its tokenizer, or remove data.fingerprint"
        )
    if (bos := int(corpus.split("train").tokens[0])) != corpus.vocabulary.bos:
        raise DataError(
            f"documents of the corpus of data.fingerprint {config.fingerprint} start with id {bos}, not with "
            f"{corpus.vocabulary.bos}: set data.bos, or remove data.fingerprint"
        )


def with_model_tokenizer(config: DataSettings, model: str, revision: str = "") -> DataSettings:
    """Returns settings of the same documents for a pretrained model: its tokenizer, its bos and no additional ids.

    Args:
        model: the folder or name of the model, whose tokenizer is used unless `config` names one of Hugging Face.
        revision: of the model on the hub.
    """
    own = config.tokenizer
    if own.kind != "hugging_face" or not own.name:
        own = TokenizerSettings("hugging_face", name=model, revision=revision)
    return replace(config, tokenizer=own, bos=hugging_face.bos_id(own.name, own.revision))


def fingerprint(config: DataSettings) -> str:
    """Returns the fingerprint of a corpus, by which it is opened and which ids of models contain."""
    return config.fingerprint or computed_fingerprint(config)


def computed_fingerprint(config: DataSettings) -> str:
    """Returns a hash of the documents, splits and tokenizer of a corpus alone."""
    own = [] if config.bos is None else [f"bos-{config.bos}"]
    return digest([FORMAT, open_source(config).fingerprint(), tokenizer.tokenizer_id(config.tokenizer), *own])


def _parts(config: DataSettings) -> tuple[Source, Callable[[], Tokenizer]]:
    if config.fingerprint and config.fingerprint != (found := computed_fingerprint(config)):
        raise DataError(
            f"data={config.name} has fingerprint {found} here, data.fingerprint is "
            f"{config.fingerprint}: copy that folder into the cache, or remove the setting"
        )
    source = open_source(config)
    return source, partial(_make_tokenizer, config, source)


def _make_tokenizer(config: DataSettings, source: Source) -> Tokenizer:
    texts = (document.text for document in source.documents("train"))
    made = tokenizer.make(config.tokenizer, texts)
    if config.bos is not None:
        check_bos(config.bos, made.vocab_size)
    return made


def open_source(config: DataSettings) -> Source:
    """Creates the source of documents that the settings name."""
    if config.source not in SOURCES:
        raise unknown("data.source", config.source, SOURCES)
    return SOURCES[config.source](config)


def check_corpus(corpus: Corpus, length: int) -> None:
    """Raises LengthError if a split of the corpus is too short to train on sequences of `length` tokens."""
    for split in ("train", "validation"):
        if len(corpus.split(split).tokens) <= length:
            raise LengthError(
                f"train.seq_len {length} is longer than the {split} split of {corpus.name} "
                f"({len(corpus.split(split).tokens)} tokens): choose a shorter one or other data"
            )
