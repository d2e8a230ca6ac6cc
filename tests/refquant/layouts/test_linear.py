"""The record where integer layouts meet: its formula, its checks, its exact conversions."""

import dataclasses

import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts.linear import Linear, integers, middle, offsets


def by_hand(record: Linear) -> np.ndarray:
    """Element by element, in Python."""
    outs, ins = record.codes.shape
    x = np.empty((outs, ins), np.float32)
    for o in range(outs):
        for i in range(ins):
            g = i // record.group_size if record.g_idx is None else record.g_idx[i]
            q, s = np.float32(record.codes[o, i]) - np.float32(record.zero_point[o, g]), record.scale[o, g]
            with np.errstate(all="ignore"):
                value = q / s if record.divide else q * s
            x[o, i] = value if record.offset is None else value + record.offset[o, g]
    return x


@pytest.mark.parametrize("zero", ["int", "middle", "float", "offset"])
@pytest.mark.parametrize("g_idx", [False, True])
@pytest.mark.parametrize("divide", [False, True])
def test_dequantize_is_the_formula(linear, zero, g_idx, divide):
    record = linear(4, 8, 48, 16, zero=zero, g_idx=g_idx, divide=divide)
    np.testing.assert_array_equal(record.dequantize(), by_hand(record))


def test_the_last_group_may_be_short(linear):
    record = linear(4, 8, 40, 16)
    np.testing.assert_array_equal(record.dequantize(), by_hand(record))


def test_offsets_and_integer_zero_points_are_inverses_where_exact(linear):
    record = linear(4, zero="int")
    moved = dataclasses.replace(record, zero_point=np.zeros_like(record.zero_point), offset=offsets("t", record))
    np.testing.assert_array_equal(moved.dequantize(), record.dequantize())
    back = integers("t", moved)
    live = record.scale != 0
    np.testing.assert_array_equal(back[live], record.zero_point[live])
    np.testing.assert_array_equal(back[~live], 8)


def test_a_quotient_that_only_rounds_to_an_integer_is_refused():
    scale = np.array([[np.float32(0.1)]])
    offset = np.nextafter(np.float32(-3) * scale, np.float32(-1))
    record = Linear(np.zeros((1, 4), np.uint8), scale, np.zeros((1, 1), np.int16), 4, 4, "float32", offset)
    with pytest.raises(RangeError, match=r"offset / scale of group \[0, 0\] = -0.3\d* / 0.1, expected an integer"):
        integers("t", record)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"bits": 9}, RangeError, "bits, dtype, group_size = 9"),
        ({"dtype": "float64"}, RangeError, "'float64'"),
        ({"group_size": 0}, RangeError, "expected 1 to 8"),
        ({"bits": 3}, RangeError, "expected codes below 8"),
        ({"codes": np.zeros((64, 256), np.int8)}, ShapeError, "int8"),
        ({"codes": np.zeros((64, 0), np.uint8)}, ShapeError, "expected uint8"),
        ({"scale": np.zeros((64, 3), np.float32)}, ShapeError, r"\(64, 3\), expected \(64, 4\)"),
        ({"scale": np.zeros((64, 4), np.float16)}, QuantError, "float16, expected float32"),
        ({"zero_point": np.zeros((64, 4), np.uint8)}, QuantError, "uint8, expected int16 or float32"),
        ({"g_idx": np.zeros(255, np.int32)}, ShapeError, "g_idx"),
        ({"g_idx": np.full(256, 4, np.int32)}, RangeError, r"g_idx in 4..4, expected 0..3"),
        ({"shape": (3, 5)}, ShapeError, "expected 16384 weights"),
    ],
)
def test_a_record_that_does_not_fit_together_is_refused(linear, change, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(linear(), **change)


def test_symmetric_means_the_middle_everywhere(linear):
    assert linear(zero="middle").symmetric
    assert not linear(zero="int").symmetric
    assert not linear(zero="offset").symmetric
    np.testing.assert_array_equal(middle(3, (1, 2)), [[4, 4]])
