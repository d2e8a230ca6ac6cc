"""The table of types: how a matrix of each is packed, and which kernels multiply it.

A type that is not here runs through the slow path: it is decoded to float32 at load (runtime.weights).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.jit import Compiled
from runtime.kernels import (
    activations,
    bf16,
    floats,
    gemm,
    gemm_super,
    iq1,
    iq2,
    iq3,
    iq4_nl,
    iq4_xs,
    mxfp4,
    nvfp4,
    q1_0,
    q2_0,
    q2_k,
    q3_k,
    q4_0,
    q4_1,
    q4_k,
    q5_0,
    q5_1,
    q5_k,
    q6_k,
    q8_0,
    ternary,
)


@dataclass(frozen=True, slots=True)
class Product:
    """y = W x for one type of W."""

    fields: tuple[tuple[int, int], ...]  # (bytes, times) of a block in file order: what is interleaved
    matvec: Compiled  # one token
    matmul: Compiled  # many tokens
    twin: Callable  # the same arithmetic in NumPy, from the bytes of the file
    form: int = 0  # activations.Q8_0, Q8_K or BF16, or 0: x as float32
    unpack: Compiled | None = None
    bias: int = 0  # how much too high the unpacked codes stand
    halves: bool = False  # sums of 16 codes, not of 32
    tables: np.ndarray | None = None  # constants that `unpack` reads


PRODUCTS = {
    "F32": Product(((4, 1),), floats.matmul_f32, floats.matmul_f32, floats.matmul_numpy),
    "F16": Product(((2, 1),), floats.matmul_f16, floats.matmul_f16, floats.matmul_numpy),
    "BF16": Product(bf16.FIELDS, bf16.matmul, bf16.matmul, bf16.matmul_numpy, activations.BF16),
    "Q4_0": Product(
        q4_0.FIELDS, q4_0.matvec, gemm.gemm_narrow, q4_0.matmul_numpy, activations.Q8_0, q4_0.unpack, q4_0.BIAS
    ),
    "Q4_1": Product(q4_1.FIELDS, q4_1.matvec, gemm.gemm_minimum, q4_1.matmul_numpy, activations.Q8_0, q4_1.unpack),
    "Q5_0": Product(
        q5_0.FIELDS, q5_0.matvec, gemm.gemm_narrow, q5_0.matmul_numpy, activations.Q8_0, q5_0.unpack, q5_0.BIAS
    ),
    "Q5_1": Product(q5_1.FIELDS, q5_1.matvec, gemm.gemm_minimum, q5_1.matmul_numpy, activations.Q8_0, q5_1.unpack),
    "IQ4_NL": Product(
        iq4_nl.FIELDS, iq4_nl.matvec, gemm.gemm_wide, iq4_nl.matmul_numpy, activations.Q8_0, iq4_nl.unpack, iq4_nl.BIAS
    ),
    "MXFP4": Product(
        mxfp4.FIELDS, mxfp4.matvec, gemm.gemm_narrow, mxfp4.matmul_numpy, activations.Q8_0, mxfp4.unpack, mxfp4.BIAS
    ),
    "NVFP4": Product(
        nvfp4.FIELDS,
        nvfp4.matvec,
        gemm.gemm_halves,
        nvfp4.matmul_numpy,
        activations.Q8_0,
        nvfp4.unpack,
        nvfp4.BIAS,
        halves=True,
    ),
    "Q1_0": Product(
        q1_0.FIELDS, q1_0.matvec, gemm.gemm_narrow, q1_0.matmul_numpy, activations.Q8_0, q1_0.unpack, q1_0.BIAS
    ),
    "Q2_0": Product(
        q2_0.FIELDS, q2_0.matvec, gemm.gemm_narrow, q2_0.matmul_numpy, activations.Q8_0, q2_0.unpack, q2_0.BIAS
    ),
    "Q8_0": Product(
        q8_0.FIELDS, q8_0.matvec, gemm.gemm_wide, q8_0.matmul_numpy, activations.Q8_0, q8_0.unpack, q8_0.BIAS
    ),
    "Q4_K": Product(
        q4_k.FIELDS, q4_k.matvec, gemm_super.gemm_minimum, q4_k.matmul_numpy, activations.Q8_K, q4_k.unpack
    ),
    "Q6_K": Product(
        q6_k.FIELDS,
        q6_k.matvec,
        gemm_super.gemm_signed_halves,
        q6_k.matmul_numpy,
        activations.Q8_K,
        q6_k.unpack,
        halves=True,
    ),
    "Q5_K": Product(
        q5_k.FIELDS, q5_k.matvec, gemm_super.gemm_minimum, q5_k.matmul_numpy, activations.Q8_K, q5_k.unpack
    ),
    "Q3_K": Product(
        q3_k.FIELDS,
        q3_k.matvec,
        gemm_super.gemm_signed_folded,
        q3_k.matmul_numpy,
        activations.Q8_K,
        q3_k.unpack,
        halves=True,
    ),
    "Q2_K": Product(
        q2_k.FIELDS,
        q2_k.matvec,
        gemm_super.gemm_folded_minimum,
        q2_k.matmul_numpy,
        activations.Q8_K,
        q2_k.unpack,
        halves=True,
    ),
    "IQ4_XS": Product(
        iq4_xs.FIELDS, iq4_xs.matvec, gemm_super.gemm_signed, iq4_xs.matmul_numpy, activations.Q8_K, iq4_xs.unpack
    ),
    "TQ1_0": Product(
        ternary.TQ1_0_FIELDS,
        ternary.matvec_tq1_0,
        gemm_super.gemm_signed_folded,
        ternary.tq1_0_numpy,
        activations.Q8_K,
        ternary.unpack_tq1_0,
    ),
    "TQ2_0": Product(
        ternary.TQ2_0_FIELDS,
        ternary.matvec_tq2_0,
        gemm_super.gemm_signed_folded,
        ternary.tq2_0_numpy,
        activations.Q8_K,
        ternary.unpack_tq2_0,
    ),
    "IQ2_XXS": Product(
        iq2.XXS_FIELDS,
        gemm_super.gemm_signed,
        gemm_super.gemm_signed,
        iq2.xxs_numpy,
        activations.Q8_K,
        iq2.unpack_xxs,
        tables=iq2.XXS_TABLE,
    ),
    "IQ2_XS": Product(
        iq2.XS_FIELDS,
        gemm_super.gemm_signed_halves,
        gemm_super.gemm_signed_halves,
        iq2.xs_numpy,
        activations.Q8_K,
        iq2.unpack_xs,
        tables=iq2.XS_TABLE,
    ),
    "IQ2_S": Product(
        iq2.S_FIELDS,
        gemm_super.gemm_signed_halves,
        gemm_super.gemm_signed_halves,
        iq2.s_numpy,
        activations.Q8_K,
        iq2.unpack_s,
        tables=iq2.S_TABLE,
    ),
    "IQ3_XXS": Product(
        iq3.XXS_FIELDS,
        gemm_super.gemm_signed,
        gemm_super.gemm_signed,
        iq3.xxs_numpy,
        activations.Q8_K,
        iq3.unpack_xxs,
        tables=iq3.XXS_TABLE,
    ),
    "IQ3_S": Product(
        iq3.S_FIELDS,
        gemm_super.gemm_signed,
        gemm_super.gemm_signed,
        iq3.s_numpy,
        activations.Q8_K,
        iq3.unpack_s,
        tables=iq3.S_TABLE,
    ),
    "IQ1_S": Product(
        iq1.S_FIELDS,
        gemm_super.gemm_signed,
        gemm_super.gemm_signed,
        iq1.s_numpy,
        activations.Q8_K,
        iq1.unpack_s,
        tables=iq1.TABLE,
    ),
    "IQ1_M": Product(
        iq1.M_FIELDS,
        gemm_super.gemm_signed_halves,
        gemm_super.gemm_signed_halves,
        iq1.m_numpy,
        activations.Q8_K,
        iq1.unpack_m,
        tables=iq1.TABLE,
    ),
}
