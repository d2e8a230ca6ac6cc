"""AF4 (AbnormalFloat, 4 bits): 16 levels made to lose little, in the mean of |x - x^|, on blocks of 64 Gaussians.

    encode   s = max|x| over a block          code = argmin_k |x / s - LEVELS[k]|
    decode   x^ = s * LEVELS[code]

Idea     dividing a block by its own maximum changes the distribution: of 64 quotients one is -1 or 1, and the others
         are Gaussians cut off at a random place. Let F be the distribution function of such a quotient. The mean of
         |x - x^| is least where every level is the median of what is rounded to it:
         F(level) = (F(its lower bound) + F(its upper bound)) / 2. F depends on the block, so the levels do; these are
         for 64.
Zero     the literals obey that equation for 7 levels below 0, of which -1 is kept, and 8 above, of which 1 is, with the
         two innermost bins ending at 0. The level 0 was added to them afterwards and takes half of those two bins:
         measured, the 16 levels lose 3 % more than NF4 in the mean of |x - x^|, and 8 % more in the mean square.
Shapes, rounding, zeros and bytes are those of NF4 (nf4.py), and so are the words and the block of 64.
Source   Yoshida 2023, arXiv:2306.06965; the literals as bitsandbytes 0.50.2 prints them (get_4bit_type,
         "af4", descending there and not selectable). tests/refquant/test_af4.py derives them from the equation.
"""

import numpy as np

from refquant import codebook, dynamic_map

LEVELS = np.array(
    [-1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0,
     0.04273164, 0.12934483, 0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0],
    dtype=np.float32,
)  # fmt: skip
LEVELS.flags.writeable = False
RULE = codebook.Rule(tuple(LEVELS.tolist()), scale_rule=dynamic_map.RULE)
