"""BigBird: blocks of tokens see their neighbours, the first blocks, and a few earlier blocks drawn by chance.

Zaheer et al. Big Bird: Transformers for Longer Sequences. NeurIPS 2020, section 2 and appendix D.
arXiv:2007.14062. Internal global blocks (ITC), the causal half: of three neighbours the block itself and the
one before it, of the global blocks the first ones; random blocks are drawn among all others before, or all
of them are seen where they are no more than that. The draw is a function of the two blocks and a seed, the
same for every head, layer and length (the authors draw anew for each head).
It knows nothing of order within a block: configured around a rotation.
"""

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.masks import Blocks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/bigbird")
class BigBird(PositionScheme):
    """Visible where block(j) is block(i), block(i) - 1, below g, or one of r that block(i) drew."""

    traits = Traits(relative=True)

    def __init__(
        self,
        shape: ModelShape,
        block_size: int | None = None,
        num_global_blocks: int = 1,
        num_random_blocks: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.block_size = max(1, shape.train_len // 16) if block_size is None else block_size
        if not 1 <= self.block_size <= shape.train_len:
            raise ConfigError(
                f"bigbird block_size {self.block_size}: give 1 to {shape.train_len} tokens, the training length, or null for a "
                "sixteenth of it"
            )
        for name, count in (
            ("num_global_blocks", num_global_blocks),
            ("num_random_blocks", num_random_blocks),
            ("seed", seed),
        ):
            if not 0 <= count < 1 << 16:
                raise ConfigError(f"bigbird {name} {count}: give 0 to {(1 << 16) - 1}")
        self.blocks = Blocks(self.block_size, num_global_blocks, num_random_blocks, seed)

    def mask(self, inputs: AttentionInputs) -> Mask:
        return self.blocks
