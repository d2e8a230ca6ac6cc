"""Every product of runtime.kernels.PRODUCTS, run by the step function, equals its NumPy twin in every bit.

Each twin is the oracle, which decodes the weights and multiplies in float64, up to a bound derived here.
"""

import numpy as np
import pytest
from kernel_runner import assert_same_bits

from refquant.gguf import FORMATS, dequantize
from runtime.kernels import PRODUCTS, activations, bf16, gemm, gemm_super
from runtime.overruns import overruns
from runtime.packing import pack
from runtime.program import Program
from runtime.weights import padded
from runtime.workers import Crew

BLOCK_TYPES = [name for name, product in PRODUCTS.items() if product.form in (activations.Q8_0, activations.Q8_K)]
FORMS = {activations.Q8_0: (32, activations.q8_0_numpy), activations.Q8_K: (256, activations.q8_k_numpy)}
THREADS = 2
LARGEST = {"NVFP4": 480.0 * 6}  # all of its scale bytes may occur; of other types, blocks with |w| > 8 are drawn again


@pytest.fixture(scope="module")
def crew():
    crew = Crew(THREADS)
    yield crew
    crew.close()


def random_blocks(name: str, rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a type as the bytes of a file: random codes, scales of both signs where they have one."""
    form = FORMATS[name]
    blocks = np.zeros((rows, n // form.values), form.layout)
    draw = np.ones(blocks.shape, bool)
    while draw.any():
        count = int(draw.sum())
        new = rng.integers(0, 256, (count, form.block_bytes), np.uint8).view(form.layout)[:, 0]
        for field in new.dtype.names:
            if new.dtype[field] == np.dtype("<f2"):
                scale = rng.uniform(0.001, 0.02, count) * rng.choice([-1, 1], count)
                new[field] = scale.astype(np.float16)
        if name == "MXFP4":
            new["e"] = rng.integers(116, 126, count)
        blocks[draw] = new
        values = form.decode(blocks)
        draw = ~(np.isfinite(values) & (np.abs(values) <= LARGEST.get(name, 8.0))).all(axis=-1)
    return blocks.view(np.uint8).reshape(rows, -1)


def random_floats(name: str, rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((rows, n), np.float32)
    if name == "F16":
        return x.astype(np.float16)
    return x if name == "F32" else np.ascontiguousarray(x.view(np.uint16)[:, 1::2])


def case(name: str, rows: int, n: int, tokens: int) -> tuple[np.ndarray, tuple]:
    """Weights as a file holds them, and x as the kernels read it; the first block of the last token is zeros."""
    rng = np.random.default_rng([rows, n, tokens])
    scale = np.float32(10) ** rng.integers(-2, 2, (tokens, 1)).astype(np.float32)
    x = rng.standard_normal((tokens, n), np.float32) * scale
    if name not in BLOCK_TYPES:
        return random_floats(name, rows, n, rng), (bf16.encode_numpy(x) if name == "BF16" else x,)
    block, encode = FORMS[PRODUCTS[name].form]
    x[-1, : block if n > block else 0] = 0
    return random_blocks(name, rows, n, rng), encode(x)


def identity(name: str, n: int) -> tuple:
    """x whose tokens are the columns of the identity, with codes and scales of 1."""
    codes, (block, _) = np.eye(n, dtype=np.int8), FORMS[PRODUCTS[name].form]
    sums, halves = (codes.reshape(n, -1, size).sum(axis=-1, dtype=np.int32) for size in (32, 16))
    return codes, np.ones((n, n // block), np.float32), sums, halves


def multiply(crew: Crew, name: str, w: np.ndarray, x: tuple, many: bool, tokens: int) -> np.ndarray:
    """The first `tokens` of x through the kernels of a prompt or of one token: (tokens, rows)."""
    product, (rows, n), stride = PRODUCTS[name], (len(w), x[0].shape[1]), padded(len(w))
    packed = pack(w.view(np.uint8).reshape(rows, -1), name, crew)
    y, panels = np.full((len(x[0]), stride), np.nan, np.float32), np.zeros(THREADS * gemm.PANEL, np.uint8)
    kernel = product.matmul if many else product.matvec
    if name in BLOCK_TYPES:
        codes, e, sums, halves = x
        codes = activations.raised_numpy(codes) if kernel in gemm_super.RAISED else codes
        buffers = [packed, codes, e, halves if product.halves else sums, y, panels, product.tables]
        numbers = [n, stride * 4, product.unpack, product.bias, 0]
    else:
        buffers, numbers = [packed, x[0], None, None, y, panels], [n, stride * 4, 0, 0, n * x[0].itemsize]
    program = Program()
    program.add(kernel, buffers, numbers, fixed=stride // 32)
    crew.run(program.table(), 0, 1, tokens, 0)
    assert overruns.value == 0  # counted when REFQUANT_CHECKED is set
    assert np.isnan(y[tokens:]).all()
    return y[:tokens, :rows]


def twin(name: str, w: np.ndarray, x: tuple) -> np.ndarray:
    product = PRODUCTS[name]
    if name not in BLOCK_TYPES:
        return product.twin(dequantize(w, name), x[0])
    return product.twin(w, x[0], x[1], x[3] if product.halves else x[2])


def widths(name: str) -> list[int]:
    """One block, a slab of the matrix product and one block more, three slabs."""
    block = max(32, FORMATS[name].values)
    return [block, 512 + block, 1536]


def offsets(name: str, w: np.ndarray) -> np.ndarray:
    """At least what is added to or taken from the scaled codes of each weight: (rows, n) float64, zeros without."""
    form = FORMATS[name]
    blocks, largest = w.view(form.layout), {"m": 1, "dmin": 63}
    found = sum(np.abs(blocks[f].astype(np.float64)) * k for f, k in largest.items() if f in form.layout.names)
    return np.broadcast_to(found, blocks.shape).repeat(form.values, axis=1)


@pytest.mark.parametrize("rows", [1, 32, 70])
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_product_of_one_token_equals_its_twin(crew, name, rows):
    for n in widths(name):
        w, x = case(name, rows, n, 1)
        ref = twin(name, w, x)
        assert np.isfinite(ref).all()
        assert_same_bits(multiply(crew, name, w, x, False, 1), ref)


@pytest.mark.parametrize("rows", [33, 64])
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_product_of_a_prompt_equals_its_twin_at_every_length(crew, name, rows):
    for n in widths(name):
        w, x = case(name, rows, n, 13)
        ref = twin(name, w, x)
        assert np.isfinite(ref).all()
        for tokens in range(1, 14):
            assert_same_bits(multiply(crew, name, w, x, True, tokens), ref[:tokens])


@pytest.mark.parametrize("name", ["Q8_0", "Q6_K", "F16"])
def test_a_prompt_longer_than_a_window_equals_its_twin(crew, name):
    w, x = case(name, 32, 512 + 256, gemm.WINDOW + 9)
    assert_same_bits(multiply(crew, name, w, x, True, gemm.WINDOW + 9), twin(name, w, x))


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_the_product_with_the_identity_is_the_decoded_matrix(crew, name):
    n = max(32, FORMATS[name].values)
    w = random_blocks(name, 40, n, np.random.default_rng(7))
    got = multiply(crew, name, w, identity(name, n), True, n).T
    # Two or three roundings on either side, of numbers no larger than the weights and what is taken from them.
    atol = 2.0**-22 * offsets(name, w).max()
    np.testing.assert_allclose(got, dequantize(w, name), rtol=2.0**-22, atol=atol)


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_the_twin_is_the_oracle_up_to_the_rounding_of_activations_and_sums(name):
    rows, n, tokens = 33, 1536, 5
    rng = np.random.default_rng(3)
    w, x = random_blocks(name, rows, n, rng), rng.standard_normal((tokens, n), np.float32)
    block, encode = FORMS[PRODUCTS[name].form]
    operands = encode(x)
    scale = operands[1].astype(np.float64).repeat(block, axis=1)
    read = operands[0] * scale
    # A code is off by at most half, and the float16 scale of Q8_0 by a factor of 1 + 2^-11.
    assert (np.abs(read - x) <= 0.501 * np.abs(scale) + 2.0**-10.9 * np.abs(x)).all()
    weights = dequantize(w, name).astype(np.float64)
    got = twin(name, w, operands).astype(np.float64)
    # A term takes three roundings, the sum at most two for 16 columns, each of at most 2^-24 of the sum of magnitudes;
    # those of the two parts of a weight with an offset are at most |w| + 2 |offset|.
    rounding = (3 + 2 * n / 16) * 2.0**-24 * (np.abs(read) @ (np.abs(weights) + 2 * offsets(name, w)).T)
    assert (np.abs(got - read @ weights.T) <= rounding).all()
    assert (np.abs(got - x @ weights.T) <= rounding + np.abs(read - x) @ np.abs(weights).T).all()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_activations_that_are_not_finite_show_in_every_row(crew, name, many):
    n = 2 * max(32, FORMATS[name].values)
    w = random_blocks(name, 33, n, np.random.default_rng(5))
    x = np.ones((1, n), np.float32)
    x[0, n - 1] = np.inf
    assert np.isnan(multiply(crew, name, w, FORMS[PRODUCTS[name].form][1](x), many, 1)).all()


@pytest.mark.parametrize("name, field", [("MXFP4", "e"), ("NVFP4", "d")])
def test_every_byte_of_a_scale_means_what_the_oracle_says(crew, name, field):
    form = FORMATS[name]
    blocks = np.full((256, form.block_bytes), 0x11, np.uint8).view(form.layout)  # every code is 1, the number 0.5
    blocks[field] = np.arange(256, dtype=np.uint8).reshape(-1, *[1] * (blocks[field].ndim - 1))
    w, x = blocks.view(np.uint8).reshape(256, -1), identity(name, form.values)
    ref = np.ascontiguousarray(dequantize(w, name).T)
    assert_same_bits(multiply(crew, name, w, tuple(part[:1] for part in x), False, 1), ref[:1])
    assert_same_bits(multiply(crew, name, w, x, True, form.values), ref)
    assert_same_bits(twin(name, w, x), ref)
