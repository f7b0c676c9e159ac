"""BigBird: blocks of tokens see their neighbours, the first blocks, and a few earlier blocks drawn by chance.

Zaheer et al. Big Bird: Transformers for Longer Sequences. NeurIPS 2020, section 2 and appendix D.
arXiv:2007.14062. Internal global blocks (ITC), the causal half: of three neighbours the block itself and the
one before it, of the global blocks the first ones; random blocks are drawn among all others before, or all
of them are seen where they are no more than that. The draw is a function of the two blocks and a seed, the
same for every head, layer and length (the authors draw anew for each head).
It knows nothing of order within a block: configured around a rotation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from posbench.errors import ConfigError
from posbench.geometry import Mask
from posbench.masks import Known, Span, together
from posbench.scheme import PositionScheme, Shape, Site, Traits


class BigBird(PositionScheme):
    """Visible where block(j) is block(i), block(i) - 1, below g, or one of r that block(i) drew."""

    traits = Traits(relative=True)

    def __init__(
        self,
        shape: Shape,
        block: int | None = None,
        global_blocks: int = 1,
        random_blocks: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.block = max(1, shape.train_len // 16) if block is None else block
        if not 1 <= self.block <= shape.train_len:
            raise ConfigError(
                f"bigbird block {self.block}: give 1 to {shape.train_len} tokens, the training length, or null for a "
                "sixteenth of it"
            )
        for name, count in (
            ("global_blocks", global_blocks),
            ("random_blocks", random_blocks),
            ("seed", seed),
        ):
            if not 0 <= count < 1 << 16:
                raise ConfigError(f"bigbird {name} {count}: give 0 to {(1 << 16) - 1}")
        self.blocks = Blocks(self.block, global_blocks, random_blocks, seed)

    def mask(self, site: Site) -> Mask:
        return self.blocks


@dataclass(frozen=True)
class Blocks(Known):
    """What BigBird shows, a function of the two blocks."""

    block: int
    global_blocks: int
    random_blocks: int
    seed: int

    def __call__(self, i: Tensor, j: Tensor) -> Tensor:
        query, key = i // self.block, j // self.block
        candidates = query - 1 - self.global_blocks  # what lies between the global blocks and the neighbour
        seen = (query - key <= 1) | (key < self.global_blocks) | (candidates <= self.random_blocks)
        for drawn in self.drawn(query):
            seen = seen | (key == self.global_blocks + drawn)
        return seen

    def drawn(self, query: Tensor) -> list[Tensor]:
        """Distinct numbers of candidates for each block, by Floyd's algorithm."""
        candidates = query - 1 - self.global_blocks
        chosen: list[Tensor] = []
        for number in range(self.random_blocks):
            last = (candidates - self.random_blocks + number).clamp(min=0)
            drawn = scrambled(query, number, self.seed) % (last + 1)
            for earlier in chosen:
                drawn = torch.where(drawn == earlier, last, drawn)
            chosen.append(drawn)
        return chosen

    def spans(self, first: int, last: int) -> list[Span]:
        size, blocks = self.block, last // self.block + 1
        queries = torch.arange(first // size, blocks)[:, None]
        seen = self(queries * size, torch.arange(blocks) * size).any(0)
        return together([(block * size, (block + 1) * size) for block in seen.nonzero().flatten().tolist()])


def scrambled(block: Tensor, number: int, seed: int) -> Tensor:
    """Integers below 2^32 that look random: an integer hash, the same on every machine."""
    mixed = (block * 2654435761 + number * 97531 + seed * 40503 + 1) & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)
