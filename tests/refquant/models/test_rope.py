from dataclasses import replace

import naive_model
import numpy as np
import pytest

from refquant.errors import NonFiniteError, RangeError, ShapeError
from refquant.models import ModelConfig, RopeScaling, rope

CONFIG = ModelConfig(
    arch="llama", n_layer=1, n_embd=64, n_ff=64, n_head=2, n_head_kv=2, head_dim=32, head_dim_v=32, n_vocab=8,
    n_ctx_train=256, rms_eps=1e-5, rope_dim=32, rope_base=10000.0, rope_style="norm", rope_scaling=RopeScaling(),
    attn_scale=1.0, tied_output=True,
)  # fmt: skip
SCALINGS = [
    RopeScaling(),
    RopeScaling("linear", 4.0, 64),
    RopeScaling("yarn", 4.0, 64),
    RopeScaling("yarn", 8.0, 4096),
    RopeScaling("yarn", 32.0, 8, attn_factor=0.7),
]


def naive(config, freqs=None):
    scaling = config.rope_scaling
    return {
        "rope_dim": config.rope_dim, "base": config.rope_base, "freqs": freqs, "style": config.rope_style,
        "kind": scaling.kind, "factor": scaling.factor, "original_context": scaling.original_context,
        "mscale": rope.mscale(config),
    }  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("style", ["norm", "neox"])
@pytest.mark.parametrize("rope_dim", [32, 12])
def test_heads_turn_as_complex_numbers_do(scaling, style, rope_dim):
    config = replace(CONFIG, rope_scaling=scaling, rope_style=style, rope_dim=rope_dim)
    rng = np.random.default_rng([rope_dim])
    x = rng.normal(size=(5, 3, 32))
    positions = np.array([0, 1, 2, 100, 2000])
    cos, sin = rope.table(rope.inv_freq(config), positions, rope.mscale(config))
    got = rope.rotate(x, cos, sin, style)
    ref = [[naive_model.turn(naive(config), list(head), int(pos)) for head in x[t]] for t, pos in enumerate(positions)]
    np.testing.assert_allclose(got, ref, rtol=0, atol=1e-11)


def test_the_yarn_ramp_ends_within_the_head():
    config = replace(CONFIG, rope_base=4.0, rope_scaling=RopeScaling("yarn", 4.0, 128))  # pair 35 would turn once
    ref = [naive_model.speed(naive(config), i) for i in range(16)]
    np.testing.assert_allclose(rope.inv_freq(config), ref, rtol=1e-13)


def test_frequencies_are_float64_and_fall_from_one():
    f = rope.inv_freq(CONFIG)
    assert f.dtype == np.float64 and f.shape == (16,)
    np.testing.assert_allclose(f, [10000 ** (-i / 16) for i in range(16)], rtol=1e-14)


def test_the_tensor_of_llama_3_divides_the_frequencies():
    freqs = np.linspace(1, 8, 16, dtype=np.float32)
    np.testing.assert_allclose(rope.inv_freq(CONFIG, freqs), rope.inv_freq(CONFIG) / freqs, rtol=1e-15)


def test_yarn_keeps_fast_pairs_and_slows_slow_ones_by_the_factor():
    config = replace(CONFIG, rope_scaling=RopeScaling("yarn", 4.0, 2048))
    ratio = rope.inv_freq(CONFIG) / rope.inv_freq(config)
    assert ratio[0] == 1 and ratio[-1] == pytest.approx(4)
    assert (np.diff(ratio) >= 0).all()


@pytest.mark.parametrize("scaling, expected", [
    (RopeScaling(), 1.0),
    (RopeScaling("linear", 4.0, 64, attn_factor=0.5), 0.5),
    (RopeScaling("yarn", 4.0, 64), 1.138629436111989),
    (RopeScaling("yarn", 4.0, 64, attn_factor=0.5), 0.5693147180559945),
    (RopeScaling("yarn", 0.5, 64), 1.0),
])  # fmt: skip
def test_the_magnitude_grows_with_the_logarithm_of_the_yarn_factor(scaling, expected):
    assert rope.mscale(replace(CONFIG, rope_scaling=scaling)) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("style", ["norm", "neox"])
def test_scores_depend_on_the_distance_only_and_arguments_stay(style):
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(2, 1, 1, 32))
    f = rope.inv_freq(CONFIG)

    def score(at, seen):
        turned = [rope.rotate(x, *rope.table(f, np.array([p]), 1.0), style) for x, p in ((q, at), (k, seen))]
        return float((turned[0] * turned[1]).sum())

    before = q.copy()
    assert score(7, 3) == pytest.approx(score(1007, 1003), abs=1e-9)
    assert score(7, 3) != pytest.approx(score(8, 3), abs=1e-3)
    np.testing.assert_array_equal(q, before)


@pytest.mark.parametrize("freqs, error, message", [
    (np.ones(15), ShapeError, r"rope_freqs.shape = \(15,\), expected \(16,\)"),
    (np.full(16, np.inf), NonFiniteError, r"rope_freqs.flat\[0\] = inf"),
    (np.zeros(16), RangeError, "rope_freqs holds 0.0, expected positive numbers"),
])  # fmt: skip
def test_refusals(freqs, error, message):
    with pytest.raises(error, match=message):
        rope.inv_freq(CONFIG, freqs)
