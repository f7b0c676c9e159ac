"""Writes every file of an exported model."""

from __future__ import annotations

from pathlib import Path

from posbench.config.hydra_app import load_group
from posbench.export import card, families, folder, sources, tokenizer
from posbench.export.source_model import SourceModel


def export_model(
    source: SourceModel,
    to: Path,
    *,
    results_dir: Path,
    cache_dir: Path,
    licence: str,
    command: str,
    own_code: bool = False,
) -> str:
    """Writes a model to an empty folder; returns its model type in transformers.

    Args:
        results_dir: folder with the rows of the model, for its card.
        cache_dir: folder of tokenized corpora.
        licence: of the weights; empty for the default.
        command: that exports it, for its card.
        own_code: whether to write the Python files also for a model of transformers' own families.
    """
    source.extended()  # a mistake is reported before anything is written
    ends = None
    if source.settings is not None:
        bos = tokenizer.write_trained(
            source.settings.data, cache_dir, source.length or source.train_len, to
        ).bos
    else:
        assert source.pretrained is not None
        given = source.pretrained.settings
        own = tokenizer.write_own(given.name, given.revision, to)
        bos, ends = own.bos_token_id, folder.end_ids(source, own)
    plain = None if own_code else families.as_family(source, bos)
    files: dict[str, str] = {}
    if plain is None:
        files = folder.write_model(source, to, bos, ends)
    else:
        plain.save_pretrained(to)
    family = "posbench" if plain is None else plain.config.model_type
    rows, notes = card.rows_of(source, results_dir)
    options = {group: load_group(group) for group in card.DEFAULTS}
    text = card.model_card(
        source,
        rows,
        notes,
        family,
        licence or ("apache-2.0" if source.settings else "other"),
        command,
        options,
        sources.third_party(files),
        sources.packages(folder.targets([source.scheme, source.extension.build])) - {"posbench"},
    )
    (to / "README.md").write_text(text, "utf-8")
    return family
