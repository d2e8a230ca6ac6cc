"""The forms of activations, and what makes them: norm, SwiGLU, and the plain encoding."""

import numpy as np
import pytest
from kernel_runner import assert_same_bits, run

from runtime.kernels import activations, bf16, exponential, norm, swiglu

FORMS = {
    "Q8_0": (activations.Q8_0, 32, activations.q8_0_numpy),
    "Q8_K": (activations.Q8_K, 256, activations.q8_k_numpy),
}


def arrays(tokens: int, width: int, block: int) -> list[np.ndarray]:
    """codes, e, sums, halves; with blocks of 256 the raised codes too."""
    shapes = [(width, np.int8), (width // block, np.float32), (width // 32, np.int32), (width // 16, np.int32)]
    return [np.full((tokens, n), 99, dtype) for n, dtype in shapes + [(width, np.uint8)] * (block == 256)]


def encoded(x: np.ndarray, name: str) -> list[np.ndarray]:
    form = getattr(activations, name)
    tokens, width = x.shape
    made = {bit: arrays(tokens, width, b) for bit, b in ((1, 32), (2, 256))}
    made[activations.BF16] = [np.full((tokens, width), 99, np.uint16)]
    units = tokens * -(-width // 256)
    buffers = [None, None, x.copy(), None, None, *made[1], *made[2], *made[4]]
    run(swiglu.encode, buffers, [width, 0, form, 0], units, tokens)
    return made[form]


def difficult(tokens: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((tokens, width)) * 10.0 ** rng.integers(-40, 30, (tokens, 1))).astype(np.float32)
    x[0, :256] = 0
    x[1, 256:] = np.float32(1e-44)
    x[2, 5], x[3, 300] = np.inf, np.nan
    x[4] = np.linspace(-127, 127, width).round() / 2  # ties once scaled
    x[4, ::32] = 127 / 2
    x[5, 40], x[5, 41] = 3e30, -3e30
    x[6, 40], x[6, 41] = -3e30, 3e30
    return x


@pytest.mark.parametrize("width", [32, 512, 544])
def test_bfloat16_activations_are_those_of_the_twin(width):
    x = difficult(8, 512)[:, :width] if width <= 512 else np.tile(difficult(8, 512), 2)[:, :width]
    x = np.ascontiguousarray(x)
    x[7, 3] = np.float32(-np.nan)
    (got,) = encoded(x, "BF16")
    assert_same_bits(got, bf16.encode_numpy(x))


@pytest.mark.parametrize("name", FORMS)
def test_codes_scales_and_sums_are_those_of_the_twin(name):
    x = difficult(8, 512)
    got = encoded(x, name)
    for part, ref in zip(got, FORMS[name][2](x)):
        np.testing.assert_array_equal(part, ref)
    codes, e, sums, halves = got[:4]
    block = FORMS[name][1]
    assert e[0, 0] == 0 and not codes[0, :256].any()
    assert np.isnan(e[2, 0]) and np.isnan(e[3, 300 // block])
    assert np.abs(codes.astype(int)).max() == 127
    np.testing.assert_array_equal(sums, codes.reshape(8, -1, 32).sum(-1, dtype=np.int32))
    np.testing.assert_array_equal(halves, codes.reshape(8, -1, 16).sum(-1, dtype=np.int32))
    for raised in got[4:]:
        np.testing.assert_array_equal(raised, codes.astype(int) + 128)
        assert_same_bits(raised, activations.raised_numpy(codes))


@pytest.mark.parametrize("name", FORMS)
def test_a_code_is_off_by_at_most_half_a_step(name):
    x = np.random.default_rng(1).standard_normal((3, 512)).astype(np.float32)
    codes, e = encoded(x, name)[:2]
    step = np.repeat(e, FORMS[name][1], axis=1)
    assert (np.abs(step * codes - x) <= np.abs(step) * 0.501 + np.abs(x) / 2000).all()


def test_q8_k_gives_the_first_peak_the_code_minus_127():
    x = difficult(8, 512)
    codes, e = encoded(x, "Q8_K")[:2]
    assert codes[5, [40, 41]].tolist() == [-127, 127]
    assert codes[6, [40, 41]].tolist() == [-127, 127]
    assert np.sign(e[[5, 6], 0]).tolist() == [-1, 1]


@pytest.mark.parametrize("n", [64, 100, 512])
def test_the_norm_equals_its_twin_with_and_without_something_to_add(n):
    rng, width = np.random.default_rng(n), -(-n // 32) * 32
    x, y = np.zeros((3, width), np.float32), np.zeros((3, width), np.float32)
    x[:, :n], y[:, :n] = rng.standard_normal((2, 3, n))
    weight, bias = np.zeros(width, np.float32), np.zeros(width, np.float32)
    weight[:n], bias[:n] = rng.standard_normal((2, n))
    for added, biased in ((False, False), (True, False), (True, True)):
        got_x, h, empty = x.copy(), np.empty_like(x), [*arrays(3, width, 32), *arrays(3, width, 256)]
        numbers = [n, width, width * 4 if added else 0, 0, 1e-5, biased]
        run(norm.add_norm, [got_x, y, weight, h, *empty, None, bias], numbers, 3, 3)
        ref_x = x + (y + bias if biased else y) if added else x
        assert_same_bits(got_x, ref_x)
        assert_same_bits(h, norm.normalize_numpy(ref_x, weight, n, 1e-5))
        wide = ref_x[:, :n].astype(np.float64)
        close = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight[:n]
        np.testing.assert_allclose(h[:, :n], close, rtol=2e-5, atol=1e-6)
        assert not h[:, n:].any()


@pytest.mark.parametrize("biased", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [32, 512, 544])
def test_swiglu_equals_its_twin(width, biased):
    rng = np.random.default_rng([width, biased])
    gate, up, gate_bias, up_bias = (rng.standard_normal((2, width)).astype(np.float32) * 30 for _ in range(4))
    h = np.empty_like(gate)
    empty = [*arrays(2, width, 32), *arrays(2, width, 256)]
    buffers = [gate, up, h, gate_bias[0].copy(), up_bias[0].copy(), *empty]
    run(swiglu.swiglu, buffers, [width, width * 4, 0, biased], 2 * -(-width // 256), 2)
    g = gate + gate_bias[0] if biased & 1 else gate
    u = up + up_bias[0] if biased & 2 else up
    assert_same_bits(h, swiglu.swiglu_numpy(g, u))
    wide = g.astype(np.float64)
    np.testing.assert_allclose(h, wide / (1 + np.exp(-np.clip(wide, -500, 500))) * u, rtol=1e-5, atol=1e-30)


def test_exp_is_within_two_ulp():
    x = np.concatenate([np.linspace(-90, 89, 20001), [0, -0.0, 1e-30, -np.inf, -87, 88, 200]]).astype(np.float32)
    got = exponential.exp_numpy(x)
    assert got[x == 0].tolist() == [1, 1]
    assert (got[x < -87] == 0).all()
    inside = (x >= -87) & (x <= 88)
    ref = np.exp(x[inside].astype(np.float64))
    assert (np.abs(got[inside] - ref) <= 2 * np.spacing(ref.astype(np.float32))).all()
