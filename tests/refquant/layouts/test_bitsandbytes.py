"""bitsandbytes 4-bit and int8 against one nibble at a time, and hostile quant states."""

import dataclasses
import json

import naive_layouts as naive
import numpy as np
import pytest

from refquant import dynamic_map, fp4, nf4
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts import bitsandbytes as bnb

LEVELS = {"nf4": nf4.LEVELS, "fp4": fp4.LEVELS}


def weight(quant_type="nf4", shape=(5, 39), blocksize=64, nested=False) -> bnb.FourBit:
    n = int(np.prod(shape))
    rng = np.random.default_rng(n)
    count = -(-n // blocksize)
    absmax = rng.uniform(0.5, 2, count).astype(np.float32)
    if nested:
        table = np.array(dynamic_map.RULE.levels, np.float32)
        outer = rng.uniform(0.1, 1, -(-count // 256)).astype(np.float32)
        absmax = bnb.Nested(rng.integers(0, 256, count, dtype=np.uint8), outer, table, float(np.float32(1.1)))
    codes = rng.integers(0, 16, n, dtype=np.uint8)
    return bnb.FourBit(codes, absmax, np.array(LEVELS[quant_type]), quant_type, blocksize, shape, "float16")


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(5, 39), (4, 64), (1, 1), (7,)])
@pytest.mark.parametrize("nested", [False, True])
def test_every_nibble_is_where_the_naive_loop_puts_it(quant_type, shape, nested):
    ref = weight(quant_type, shape, nested=nested)
    arrays = bnb.pack(ref)
    pad = {"nf4": 7, "fp4": 0}[quant_type]
    np.testing.assert_array_equal(arrays["weight"][:, 0], naive.high_nibble_first(ref.codes.tolist(), pad))
    got = bnb.unpack(arrays)
    assert (got.shape, got.blocksize, got.quant_type, got.dtype) == (shape, 64, quant_type, "float16")
    np.testing.assert_array_equal(got.codes, ref.codes)
    np.testing.assert_array_equal(got.dequantize(), ref.dequantize())
    again = bnb.pack(got)
    assert sorted(again) == sorted(arrays)
    for name in arrays:
        np.testing.assert_array_equal(again[name], arrays[name])


def test_the_value_is_the_level_times_the_maximum_of_its_block():
    got = weight(blocksize=32, nested=True)
    x = got.dequantize().ravel()
    inner = got.absmax
    for i in (0, 31, 32, 100, 194):
        absmax = inner.quant_map[inner.codes[i // 32]] * inner.absmax[0] + np.float32(inner.offset)
        assert x[i] == got.quant_map[got.codes[i]] * absmax


@pytest.mark.parametrize("storage", [np.uint16, np.float16, np.float32])
def test_a_weight_viewed_as_another_dtype_is_the_same(storage):
    ref = weight(shape=(4, 64))
    arrays = bnb.pack(ref)
    arrays["weight"] = arrays["weight"].reshape(-1).view(storage)[:, None]
    np.testing.assert_array_equal(bnb.unpack(arrays).codes, ref.codes)


def state(**changed):
    text = {"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [5, 39]} | changed
    return {bnb.STATE + "nf4": np.frombuffer(json.dumps(text).encode(), np.uint8)}


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({bnb.STATE + "nf4": np.frombuffer(b"{", np.uint8)}, QuantError, "quant_state is no JSON"),
        ({bnb.STATE + "nf4": np.frombuffer(b"[" * 60000, np.uint8)}, QuantError, "quant_state is no JSON"),
        ({bnb.STATE + "nf4": np.frombuffer(b"3", np.uint8)}, QuantError, "quant_state = int, expected an object"),
        ({bnb.STATE + "fp4": np.zeros(3, np.uint8)}, QuantError, "2 quant states, expected one"),
        (state(shape=[2**40, 2**40]), QuantError, "product up to"),
        (state(shape=[-5, -39]), QuantError, "shape of quant_state"),
        (state(shape=None), QuantError, "shape of quant_state = None"),
        (state(blocksize=0), QuantError, "blocksize of quant_state = 0, expected 1 to"),
        (state(blocksize=True), QuantError, "blocksize of quant_state = True"),
        (state(shape=[5, 41]), ShapeError, "weight has 98 bytes, expected 103"),
        (state(nested_offset="x"), QuantError, "nested_offset = x, expected a number"),
        (state(nested_offset=1.0), QuantError, "absmax.dtype = float32, expected uint8 exactly if it is nested"),
        ({"weight.absmax": np.zeros(3, np.float32)}, ShapeError, r"\(3,\), expected \(4,\)"),
        ({"weight.quant_map": np.zeros(15, np.float32)}, ShapeError, r"\(15,\), expected \(16,\)"),
    ],
)
def test_hostile_arrays_are_named(change, error, message):
    with pytest.raises(error, match=message):
        bnb.unpack({**bnb.pack(weight()), **change})


def test_int8_rows_multiply_twice_in_their_order():
    rng = np.random.default_rng(3)
    ref = bnb.RowInt8(rng.integers(-127, 128, (6, 40)).astype(np.int8), rng.uniform(0, 3, 6).astype(np.float32))
    arrays = bnb.pack_int8(ref)
    got = bnb.unpack_int8(arrays)
    np.testing.assert_array_equal(got.codes, ref.codes)
    one = np.float32(ref.codes[2, 3]) * ref.absmax[2] * np.float32(1 / 127)
    assert got.dequantize()[2, 3] == one
    with pytest.raises(RangeError, match=r"weight_format = \[2\], expected 0"):
        bnb.unpack_int8({**arrays, "weight_format": np.array(2, np.uint8)})
    with pytest.raises(ShapeError, match=r"SCB.shape = \(5,\), expected \(6,\)"):
        bnb.unpack_int8({**arrays, "SCB": np.zeros(5, np.float32)})


def test_a_record_that_does_not_fit_together_is_refused():
    ref = weight()
    for change in (
        {"codes": np.full(195, 16, np.uint8)},
        {"shape": (5, 40)},
        {"absmax": np.zeros(9, np.float32)},
        {"quant_type": "int4"},
    ):
        with pytest.raises(QuantError, match="FourBit: "):
            dataclasses.replace(ref, **change)
    with pytest.raises(ShapeError, match="Nested: "):
        bnb.Nested(np.zeros(300, np.uint8), np.zeros(1, np.float32), np.zeros(256, np.float32), 0.0)
