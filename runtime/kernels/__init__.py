"""The table of matmul kernels: which ggml type is multiplied by which function, and what form of x it reads.

A type that is not here runs through the slow path: it is decoded to float32 at load (runtime.weights).
"""

from collections.abc import Callable
from dataclasses import dataclass

from runtime.kernels import activations, floats, q4_0, q4_k, q6_k, q8_0


@dataclass(frozen=True, slots=True)
class ActivationForm:
    """An 8-bit form of x; `block` values share a scale."""

    name: str
    block: int
    kernel: Callable
    twin: Callable


Q8_0 = ActivationForm("Q8_0", 32, activations.quantize_q8_0, activations.quantize_q8_0_numpy)
Q8_K = ActivationForm("Q8_K", 256, activations.quantize_q8_k, activations.quantize_q8_k_numpy)


@dataclass(frozen=True, slots=True)
class Matmul:
    """y = W x for one type of W; `twin` is the same arithmetic in NumPy and equal in every bit."""

    kernel: Callable
    twin: Callable
    form: ActivationForm | None  # None: x as float32


MATMUL = {
    "F32": Matmul(floats.matmul_f32, floats.matmul_f32_numpy, None),
    "F16": Matmul(floats.matmul_f16, floats.matmul_f16_numpy, None),
    "BF16": Matmul(floats.matmul_bf16, floats.matmul_bf16_numpy, None),
    "Q8_0": Matmul(q8_0.matmul, q8_0.matmul_numpy, Q8_0),
    "Q4_0": Matmul(q4_0.matmul, q4_0.matmul_numpy, Q8_0),
    "Q4_K": Matmul(q4_k.matmul, q4_k.matmul_numpy, Q8_K),
    "Q6_K": Matmul(q6_k.matmul, q6_k.matmul_numpy, Q8_K),
}
