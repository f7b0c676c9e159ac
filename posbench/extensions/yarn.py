"""YaRN: slow frequencies interpolated, fast ones kept, and a lower softmax temperature.

Peng et al. YaRN: Efficient Context Window Extension of Large Language Models. ICLR 2024, sections 3.2 and 3.4.
arXiv:2309.00071. The paper's ramp is linear in the number of rotations within the training length (`rotations`),
that of its code in the index of the frequency, between whole indices (`dimensions`, the default, as in everything
published since; `fractional_dimensions` is without whole indices, as in gpt-oss). Frequencies of the first two
differ by up to 144% at D = 64, L = 2048, k = 8 and rope_theta 10000, and by more at a greater k.
Deviations: without fine-tuning. The temperature is one factor on the logits, where the paper has its square root on
q and on k, and leaves additive terms unchanged.
"""

from posbench.instantiate import register
from posbench.position.yarn import YaRNScaling


@register("extension/yarn")
class YaRN(YaRNScaling):
    """theta_m becomes (1 - r_m) theta_m / k + r_m theta_m, and q . k is multiplied by (temperature * ln k + 1)^2.

    k is `factor`; the ramp r is 0 below `beta_slow` rotations within the training length and 1 above `beta_fast`.
    """
