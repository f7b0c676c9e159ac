"""BigBird: block-sparse attention to neighbouring, leading and random earlier blocks.

Zaheer et al. Big Bird: Transformers for Longer Sequences. NeurIPS 2020, section 2 and appendix D.
arXiv:2007.14062. The causal half of BigBird-ITC (internal global blocks): of the three neighbouring blocks a block
attends to itself and the one before it, the first blocks are global, and random blocks are drawn from all other earlier
blocks, or all of these are visible where they are no more than the number to draw. Deviation: the draw is a
function of the two blocks and a seed, the same for every head, layer and length; the authors draw for each head.
A block is a sixteenth of the training length by default; theirs has 64 of 4096 tokens. It encodes no order
within a block, so its configuration stacks it on RoPE.
"""

from posbench.errors import ConfigError
from posbench.instantiate import register
from posbench.position.geometry import Mask
from posbench.position.local_attention import tokens_within_train_len
from posbench.position.masks import Blocks
from posbench.position.scheme import AttentionInputs, ModelShape, PositionScheme, Traits


@register("scheme/bigbird")
class BigBird(PositionScheme):
    """Key j is visible where block(j) is block(i), block(i) - 1, one of the first g, or one of r drawn for block(i)."""

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
        default = max(1, shape.train_len // 16)
        self.block_size = tokens_within_train_len(
            shape, "bigbird block_size", block_size, default, "a sixteenth of it"
        )
        for name, count, most in (
            ("num_global_blocks", num_global_blocks, (1 << 16) - 1),
            ("num_random_blocks", num_random_blocks, 100),  # each is compared with all earlier ones
            ("seed", seed, (1 << 16) - 1),
        ):
            if not 0 <= count <= most:
                raise ConfigError(f"bigbird {name} {count}: give 0 to {most}")
        self.blocks = Blocks(self.block_size, num_global_blocks, num_random_blocks, seed)

    def mask(self, inputs: AttentionInputs) -> Mask:
        return self.blocks
