import numpy as np
import pytest

from refquant import PRESETS, SchemeError, metrics, quantize


@pytest.mark.parametrize("name", ["W8A16", "W4A16", "W8A8", "W4A8"])
def test_the_name_of_a_preset_quantizes_the_weights(name):
    W = np.random.default_rng(0).standard_normal((8, 256), dtype=np.float32)
    got, ref = quantize(W, name), quantize(W, PRESETS[name].weights)
    assert got.scheme == ref.scheme
    np.testing.assert_array_equal(got.codes, ref.codes)


@pytest.mark.parametrize("name", ["W16A16", "W8A16", "W4A16", "W8A8", "W4A8"])
def test_names_say_the_bits_of_both(name):
    preset = PRESETS[name]
    weights, activations = name[1:].split("A")
    assert (preset.weights.rule.bits if preset.weights else 16) == int(weights)
    assert (preset.activations.rule.bits if preset.activations else 16) == int(activations)
    assert str(preset)


def test_a_layer_in_eight_bits_is_near_the_layer():
    rng = np.random.default_rng(1)
    W, X = rng.standard_normal((32, 128), dtype=np.float32), rng.standard_normal((5, 128), dtype=np.float32)
    preset = PRESETS["W8A8"]
    got = quantize(X, preset.activations).dequantize() @ quantize(W, "W8A8").dequantize().T
    assert metrics.sqnr_db((X @ W.T), got) > 35


def test_sixteen_bits_are_not_a_quantization():
    with pytest.raises(SchemeError, match="'W16A16', expected one that quantizes weights"):
        quantize(np.ones((2, 2), np.float32), "W16A16")
