"""Every kernel equals its NumPy twin in every bit, and the twin is close to the oracle by a bound derived here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refquant.gguf import FORMATS, dequantize
from runtime.kernels import MATMUL, Q8_0, Q8_K, ActivationForm, attention, exponential, half, norm, rope, swiglu

BLOCK_TYPES = [name for name, matmul in MATMUL.items() if matmul.form is not None]
FLOAT_TYPES = [name for name, matmul in MATMUL.items() if matmul.form is None]


def random_blocks(name: str, rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a type as file bytes: random codes, and scales that are ordinary numbers of both signs."""
    form = FORMATS[name]
    blocks = rng.integers(0, 256, (rows, n // form.values, form.block_bytes), np.uint8).view(form.layout)[..., 0]
    for field in blocks.dtype.names or ():
        if blocks.dtype[field] == np.dtype("<f2"):
            scale = rng.uniform(0.001, 0.02, blocks.shape) * rng.choice([-1, 1], blocks.shape)
            blocks[field] = scale.astype(np.float16)
    return blocks.view(np.uint8).reshape(rows, -1)


def random_floats(name: str, rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((rows, n)).astype(np.float32)
    if name == "F16":
        return x.astype(np.float16).view(np.uint8)
    return x.view(np.uint8) if name == "F32" else np.ascontiguousarray(x.view(np.uint16)[:, 1::2]).view(np.uint8)


def run(name: str, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The kernel over all rows, in two parts as two threads would."""
    y = np.full((len(x), len(w)), np.nan, np.float32)
    matmul, half_way = MATMUL[name].kernel, len(w) // 2
    operands = quantized(x, MATMUL[name].form) if MATMUL[name].form else (x,)
    matmul(w, *operands, y, 0, half_way)
    matmul(w, *operands, y, half_way, len(w))
    return y


def quantized(x: np.ndarray, form: ActivationForm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = np.empty(x.shape, np.int8)
    scale = np.empty((len(x), x.shape[1] // form.block), np.float32)
    sums = np.empty((len(x), x.shape[1] // 32), np.int32)
    form.kernel(x, codes, scale, sums)
    return codes, scale, sums


def assert_same_bits(got: np.ndarray, ref: np.ndarray) -> None:
    assert got.dtype == ref.dtype
    assert got.shape == ref.shape
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), ref.view(f"u{ref.itemsize}"))


@pytest.mark.parametrize("rows, tokens, n", [(1, 1, 256), (7, 3, 512), (33, 1, 1536)])
@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_a_block_matmul_equals_its_twin_and_stays_within_the_error_of_the_activations(name, rows, tokens, n):
    rng = np.random.default_rng([rows, tokens, n])
    w = random_blocks(name, rows, n, rng)
    x = rng.standard_normal((tokens, n), np.float32)
    got = run(name, w, x)
    form = MATMUL[name].form
    operands = quantized(x, form)
    assert_same_bits(got, MATMUL[name].twin(w, *operands))
    # A code is off by at most half, and the float16 scale of Q8_0 by a factor of 1 + 2^-11, so |x - x^| <= scale / 2 +
    # |x| / 2048 and |y - y^| is at most the sum of |w| times that. The float32 sums add rounding errors of at most eps
    # times the sum of magnitudes, which the offsets of Q4_K can make several times |w x|.
    weights = np.abs(dequantize(w, name).astype(np.float64))
    ref = x.astype(np.float64) @ dequantize(w, name).astype(np.float64).T
    step = np.repeat(np.abs(operands[1]).astype(np.float64), form.block, axis=1) / 2 + np.abs(x) / 2048
    bound = step @ weights.T * 1.001 + 1e-5 * np.abs(x).astype(np.float64) @ weights.T
    if name == "Q4_K":
        bound += 1e-5 * np.abs(x).sum(axis=1, keepdims=True) * 0.02 * 63
    assert (np.abs(got - ref) <= bound).all()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 129])
@pytest.mark.parametrize("name", FLOAT_TYPES)
def test_a_float_matmul_equals_its_twin_and_the_oracle_up_to_rounding(name, n):
    rng = np.random.default_rng(n)
    w, x = random_floats(name, 5, n, rng), rng.standard_normal((3, n), np.float32)
    got = run(name, w, x)
    assert_same_bits(got, MATMUL[name].twin(w, x))
    typed = w.view({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[name])
    wide = dequantize(typed, name).astype(np.float64)
    bound = 2.0**-23 * (n + 4) * (np.abs(x) @ np.abs(wide).T)
    assert (np.abs(got - x.astype(np.float64) @ wide.T) <= bound).all()


def test_all_float16_are_widened_by_every_kernel_that_reads_them():
    every = np.arange(65536, dtype=np.uint16)
    got = np.array([half.widen(h) for h in every], np.float32)
    ref = half.widen_numpy(every)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(ref))
    assert_same_bits(got[~np.isnan(ref)], ref[~np.isnan(ref)])
    finite = every[np.isfinite(ref)]
    one = np.ones((1, 16), np.float32)
    one[0, 1:] = 0
    w = np.zeros((len(finite), 16), np.uint16)
    w[:, 0] = finite
    np.testing.assert_array_equal(run("F16", w.view(np.uint8), one)[0], ref[np.isfinite(ref)])


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_narrowing_to_float16_rounds_half_to_even_like_numpy(bits):
    x = np.array([bits], np.uint32).view(np.float32)
    assert half.narrow(x[0]) == half.narrow_numpy(x)[0]


def test_narrowing_is_right_at_every_boundary_between_two_float16():
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (every[1:] + every[:-1]) / np.float32(2)
    edges = np.concatenate([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))])
    edges = np.concatenate([edges, np.float32([65504, 65519.99, 65520, 1e6, np.inf, np.nan])])
    got = np.array([half.narrow(x) for x in edges], np.uint16)
    np.testing.assert_array_equal(got, half.narrow_numpy(edges))


@pytest.mark.parametrize("form", [Q8_0, Q8_K], ids=lambda form: form.name)
def test_activations_are_quantized_as_the_twin_says(form):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((6, 512)) * 10.0 ** rng.integers(-40, 30, (6, 1))).astype(np.float32)
    x[0, :256] = 0
    x[1, 256:] = np.float32(1e-44)
    x[2, 5], x[3, 300] = np.inf, np.nan
    x[4] = np.linspace(-127, 127, 512).round() / 2  # ties once scaled
    x[4, ::32] = 127 / 2
    codes, scale, sums = quantized(x, form)
    for got, ref in zip((codes, scale, sums), form.twin(x)):
        np.testing.assert_array_equal(got, ref)
    assert scale[0, 0] == 0 and not codes[0, :256].any()
    assert np.isnan(scale[2, 0]) and np.isnan(scale[3, 300 // form.block])
    assert np.abs(codes.astype(int)).max() == 127
    np.testing.assert_array_equal(sums, codes.reshape(6, 16, 32).sum(-1, dtype=np.int32))
    usable = np.isfinite(x).all(axis=1) & (np.abs(x).max(axis=1) > 1e-3) & (np.abs(x).max(axis=1) < 1e6)
    assert usable.any()
    step = np.repeat(scale[usable], form.block, axis=1)
    assert (np.abs(step * codes[usable] - x[usable]) <= np.abs(step) * 0.501 + np.abs(x[usable]) / 2000).all()


def test_q8_k_gives_the_first_peak_the_code_minus_127():
    x = np.zeros((1, 256), np.float32)
    x[0, 3], x[0, 9] = 2.0, -2.0
    codes, scale, _ = quantized(x, Q8_K)
    assert codes[0, [3, 9]].tolist() == [-127, 127]
    assert scale[0, 0] == np.float32(1) / (np.float32(-127) / np.float32(2))


def test_exp_equals_its_twin_and_is_within_two_ulp():
    x = np.concatenate([np.linspace(-90, 89, 20001), [0, -0.0, 1e-30, -np.inf, -87, 88, 200]]).astype(np.float32)
    got = np.array([exponential.exp(v) for v in x], np.float32)
    assert_same_bits(got, exponential.exp_numpy(x))
    assert got[x == 0].tolist() == [1, 1]
    assert (got[x < -87] == 0).all()
    inside = (x >= -87) & (x <= 88)
    ref = np.exp(x[inside].astype(np.float64))
    assert (np.abs(got[inside] - ref) <= 2 * np.spacing(ref.astype(np.float32))).all()
    assert np.isnan(exponential.exp(np.float32(np.nan)))


def test_rms_norm_equals_its_twin():
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((3, 129), np.float32), rng.standard_normal(129, np.float32)
    got = np.empty_like(x)
    norm.rms_norm(x, weight, np.float32(1e-6), got)
    assert_same_bits(got, norm.rms_norm_numpy(x, weight, np.float32(1e-6)))


@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("rope_dim", [8, 16])
def test_rotation_equals_its_twin_and_keeps_lengths(neox, rope_dim):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((5, 3 * 16), np.float32)
    angle = rng.uniform(0, 100, (5, rope_dim // 2))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    got = x.copy()
    rope.rotate(got, 16, cos, sin, neox)
    assert_same_bits(got, rope.rotate_numpy(x, 16, cos, sin, neox))
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(got.reshape(5, 3, 16)[..., rope_dim:], x.reshape(5, 3, 16)[..., rope_dim:])


def test_swiglu_equals_its_twin():
    rng = np.random.default_rng(3)
    gate, up = (rng.standard_normal((2, 37)).astype(np.float32) * 30 for _ in range(2))
    got = gate.copy()
    swiglu.swiglu(got, up)
    assert_same_bits(got, swiglu.swiglu_numpy(gate, up))


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("start, tokens", [(0, 3), (250, 12), (511, 2), (700, 1)])
def test_attention_equals_its_twin_and_the_plain_softmax(dtype, start, tokens):
    rng = np.random.default_rng([start, tokens])
    heads, kv_heads, head_dim, head_dim_v, n_ctx = 6, 2, 8, 16, 720
    draw = lambda *shape: rng.standard_normal(shape, np.float32) * np.float32(3)
    keys, values = np.zeros((kv_heads, head_dim, n_ctx), dtype), np.zeros((kv_heads, n_ctx, head_dim_v), dtype)
    k, v = draw(start + tokens, kv_heads * head_dim), draw(start + tokens, kv_heads * head_dim_v)
    twin_keys, twin_values = keys.copy(), values.copy()
    attention.append(k, v, keys, values, 0)
    attention.append_numpy(k, v, twin_keys, twin_values, 0)
    assert_same_bits(keys, twin_keys)
    assert_same_bits(values, twin_values)
    q, scale = draw(tokens, heads * head_dim), np.float32(head_dim**-0.5)
    got = np.empty((tokens, heads * head_dim_v), np.float32)
    items = tokens * heads
    attention.attend(q, keys, values, start, scale, got, 0, items // 2)
    attention.attend(q, keys, values, start, scale, got, items // 2, items)
    assert_same_bits(got, attention.attend_numpy(q, keys, values, start, scale))

    wide_k = attention.as_float(keys).astype(np.float64).repeat(3, axis=0)
    wide_v = attention.as_float(values).astype(np.float64).repeat(3, axis=0)
    for t in range(tokens):
        s = np.einsum("hd,hdn->hn", q[t].reshape(heads, head_dim), wide_k[..., : start + t + 1]) * scale
        p = np.exp(s - s.max(axis=1, keepdims=True))
        ref = np.einsum("hn,hnd->hd", p / p.sum(axis=1, keepdims=True), wide_v[:, : start + t + 1])
        np.testing.assert_allclose(got[t].reshape(heads, -1), ref, atol=2e-5)
