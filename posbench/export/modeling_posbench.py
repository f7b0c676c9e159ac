"""A GPT of posbench as a causal language model of transformers.

Sequences of a batch that differ in their padding are read apart, each at its own positions and without the padding. So
every scheme computes what it computes for the sequence alone, whether it depends on positions, lengths or content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from posbench.export.configuration_posbench import PosbenchConfig
from posbench.export.targets import TARGETS
from posbench.instantiate import instantiate, provide
from posbench.model.architecture import Architecture
from posbench.model.attention import LayerCache
from posbench.model.gpt import GPT, KVCache
from posbench.position.extension import Extension, ExtensionContext
from posbench.position.scheme import ModelShape, PositionScheme

provide(TARGETS)


@dataclass(eq=False)
class Group:
    """Sequences of a batch with the same padding.

    Attributes:
        rows: their indices in the batch.
        padding: number of padding tokens before each.
        padding_behind: number of padding tokens behind each, which only a forward pass without a cache can have.
        ids_BT: ids read so far, without the padding.
        length: declared length in tokens at which `cache` was computed.
        cache: keys and values of these ids, or None if the scheme does not allow to use them again.
    """

    rows: list[int]
    padding: int
    ids_BT: Tensor
    length: int = 0
    cache: KVCache | None = None
    padding_behind: int = 0

    def select(self, rows: list[int], chosen: list[int]) -> Group:
        """Returns the sequences `chosen` of this group as a group whose indices in the batch are `rows`."""
        index = torch.tensor(chosen, device=self.ids_BT.device)

        def taken(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[index]

        cache = self.cache and KVCache(
            [LayerCache(one.k_BHSD[index], one.v_BHSD[index], taken(one.x_BSW)) for one in self.cache.layers]
        )
        return Group(rows, self.padding, self.ids_BT[index], self.length, cache)


@dataclass(eq=False)
class PosbenchCache:
    """Keys and values of a batch, in groups of equal padding."""

    length: int = 0
    groups: list[Group] = field(default_factory=list)

    is_compileable = False
    is_sliding = (False,)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns the number of tokens read, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Makes sequence i of the batch the sequence beam_idx[i], as beam search does."""
        sources = beam_idx.tolist()
        groups = []
        for group in self.groups:
            place = {row: index for index, row in enumerate(group.rows)}
            rows = [row for row, source in enumerate(sources) if source in place]
            if rows:
                groups.append(group.select(rows, [place[sources[row]] for row in rows]))
        self.groups = groups


class PosbenchForCausalLM(PreTrainedModel, GenerationMixin):
    """A GPT, its position scheme and its extension."""

    config_class = PosbenchConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}

    def __init__(self, config: PosbenchConfig) -> None:
        super().__init__(config)
        architecture = Architecture(**config.architecture)
        self.model = GPT(architecture, config.vocab_size, build_scheme(config, architecture), seed=None)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leaves the weights to the file."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` returns its own

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.model.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.model.embedding = value

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.model.head

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        self.model.head = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PosbenchCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Computes the (B, T, V) logits of (B, T) ids; logits of padding have no meaning.

        Positions follow from the attention mask alone: the first token that is no padding has index 0. Other
        `position_ids`, `output_hidden_states` and `output_attentions` raise ValueError.

        Args:
            attention_mask: (B, S), 0 for padding before the tokens, S = T and the tokens in the cache; without a cache,
                also for padding behind them.
        """
        cache = past_key_values if isinstance(past_key_values, PosbenchCache) else PosbenchCache()
        if cache is not past_key_values and past_key_values is not None and past_key_values.get_seq_length():
            raise ValueError("past_key_values of another model: pass those that this model has returned")
        start, count = cache.length, input_ids.shape[1]
        self.check_options(kwargs, attention_mask, start, count)
        groups = cache.groups or grouped(input_ids, attention_mask)
        hidden_BTW = self.model.embedding.weight.new_zeros(*input_ids.shape, self.config.hidden_size)
        kept_groups = []
        for group in groups:
            first, stop = (
                max(0, group.padding - start),
                count - group.padding_behind,
            )  # the others are padding
            if use_cache and group.padding_behind:
                raise ValueError(
                    "padding behind tokens that are continued: set tokenizer.padding_side='left'"
                )
            if first >= stop:
                kept_groups.append(group)
                continue
            new_BTW, new_group = self.read(group, input_ids[group.rows, first:stop], use_cache)
            kept_groups.append(new_group)
            rows = torch.tensor(group.rows, device=hidden_BTW.device)[:, None]
            columns = torch.arange(first, stop, device=hidden_BTW.device)
            hidden_BTW = hidden_BTW.index_put((rows, columns), new_BTW.to(hidden_BTW.dtype))
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.model.head(hidden_BTW[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits_BTV, labels, vocab_size=self.config.vocab_size, **kwargs)
        out = CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=PosbenchCache(start + count, kept_groups) if use_cache else None,  # type: ignore[arg-type]
        )
        return out.to_tuple() if return_dict is False else out

    def check_options(
        self, options: dict[str, Any], attention_mask: Tensor | None, start: int, count: int
    ) -> None:
        """Raises ValueError for options of `forward` that would have no effect."""
        for name in ("output_hidden_states", "output_attentions"):
            if options.get(name, getattr(self.config, name, False)):
                raise ValueError(f"{name}=True: this model returns logits only; leave it out")
        given = options.get("position_ids")
        if given is None:
            return
        mask_BS = given.new_ones(1, start + count) if attention_mask is None else attention_mask.long()
        differs_BT = (given != mask_BS.cumsum(1)[:, -count:] - 1) & mask_BS[:, -count:].bool()
        if bool(differs_BT.any()):
            raise ValueError("position_ids: positions follow from attention_mask; leave position_ids out")

    def read(self, group: Group, ids_BT: Tensor, use_cache: bool) -> tuple[Tensor, Group]:
        """Returns the (B, T, W) final hidden states of the next ids of a group, and the group with them."""
        traits = self.model.scheme.traits
        all_ids_BT = torch.cat((group.ids_BT, ids_BT), 1)
        length = max(self.config.length or 0, all_ids_BT.shape[1])
        keep = use_cache and traits.shared_prefill
        valid = group.cache is not None and (traits.prefix_stable or length == group.length)
        new_BT = ids_BT if valid else all_ids_BT
        hidden_BTW, cache = self.model(
            new_BT, cache=group.cache if valid else None, length=length, use_cache=keep
        )
        kept = Group(group.rows, group.padding, all_ids_BT, length, cache)
        return hidden_BTW[:, -ids_BT.shape[1] :], kept


def grouped(input_ids: Tensor, attention_mask: Tensor | None) -> list[Group]:
    """Returns the sequences of a batch by their padding; raises ValueError for padding between tokens."""
    none_BT = input_ids[:, :0]
    if attention_mask is None or bool(attention_mask.all()):
        return [Group(list(range(len(input_ids))), 0, none_BT)]
    mask_BS = attention_mask.bool()
    counts_B = mask_BS.sum(1)
    before_B = torch.where(counts_B > 0, mask_BS.int().argmax(1), mask_BS.shape[1])
    index_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    inside_BS = (index_S >= before_B[:, None]) & (index_S < (before_B + counts_B)[:, None])
    if not bool((inside_BS == mask_BS).all()):
        raise ValueError("padding between tokens: pad before or behind them")
    rows: dict[tuple[int, int], list[int]] = {}
    behind_B = mask_BS.shape[1] - before_B - counts_B
    for row, padding in enumerate(zip(before_B.tolist(), behind_B.tolist(), strict=True)):
        rows.setdefault(padding, []).append(row)
    return [
        Group(some, before, none_BT[some], padding_behind=behind) for (before, behind), some in rows.items()
    ]


def build_scheme(config: PosbenchConfig, architecture: Architecture) -> PositionScheme:
    """Builds the scheme with its extension.

    Its constants are in no file. They are computed on the CPU, also where transformers creates parameters without data.
    """
    shape: ModelShape = architecture.shape(config.train_len)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(config.seed)
        scheme = instantiate(config.scheme, PositionScheme, shape)
        if config.extension is None:
            return scheme
        context = ExtensionContext(shape, config.length or config.train_len)
        return instantiate(config.extension, Extension, scheme, context)
