"""MLX, DeepSpeed, quanto, HQQ, torchao, ModelOpt's integers, MatMulNBits and ggml's blocks against the naive loops."""

import dataclasses

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.gguf import dequantize
from refquant.layouts import blocks, deepspeed, hqq, mlx, modelopt, onnx, quanto, torchao


@pytest.mark.parametrize("bits", mlx.BITS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_mlx(linear, same, bits, dtype):
    ref = linear(bits, 6, 128, 32, zero="offset", dtype=dtype)
    got = mlx.pack(ref)
    assert got["weight"].dtype == np.uint32
    np.testing.assert_array_equal(got["weight"], naive.stream(ref.codes.tolist(), bits))
    same(mlx.unpack(got, bits=bits, group_size=32), ref)


def test_mlx_shapes_fix_the_product_of_bits_and_group_size(linear, same):
    ref = linear(4, 6, 256, 64, zero="offset")
    arrays = mlx.pack(ref)
    assert mlx.candidates(arrays) == [(2, 128), (4, 64), (8, 32)]
    with pytest.raises(RangeError, match="2 bits in groups of 128 or 4 bits in groups of 64 or 8 bits in groups of 32"):
        mlx.unpack(arrays)
    same(mlx.unpack(arrays, group_size=64), ref)


def test_mlx_refuses_groups_it_does_not_have_and_biases_that_are_rounded(linear):
    with pytest.raises(RangeError, match="groups of 16"):
        mlx.pack(linear(4, 6, 128, 16))
    fine = linear(4, 6, 128, 32)
    fine.scale[0, 1], fine.zero_point[0, 1] = np.float16(1 + 2**-10), 3
    with pytest.raises(RangeError, match=r"biases \(-scale \* zero_point\)\[0, 1\]"):
        mlx.pack(fine)


@pytest.mark.parametrize("bits", [4, 8])
def test_deepspeed(linear, same, bits):
    ref = linear(bits, 6, 96, 32, zero="offset", divide=True)
    got = deepspeed.pack(ref)
    bytes_ = [naive.high_nibble_first(row) for row in ref.codes.tolist()] if bits == 4 else ref.codes
    np.testing.assert_array_equal(got["weight"], bytes_)
    assert got["quant_scale"].shape == got["quant_min"].shape == (6, 3, 1)
    same(deepspeed.unpack(got, bits), ref)


def test_deepspeed_decodes_a_constant_group_to_its_minimum():
    arrays = {"weight": np.array([[0x3C]], np.uint8), "quant_scale": np.full((1, 1, 1), np.inf, np.float16)}
    arrays["quant_min"] = np.full((1, 1, 1), 0.5, np.float16)
    np.testing.assert_array_equal(deepspeed.unpack(arrays).dequantize(), [[0.5, 0.5]])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("zero", ["offset", "int"])
@pytest.mark.parametrize("outs", [6, 7])
def test_quanto_groups(linear, same, bits, zero, outs):
    ref = linear(bits, outs, 96, 96 // 3, zero=zero)
    got = quanto.pack(ref)
    rows = ref.codes.reshape(-1, 32).tolist()
    np.testing.assert_array_equal(got[quanto.DATA], naive.slabs(rows, bits, high_first=False))
    assert got[quanto.SHIFT].dtype == (np.int8 if zero == "int" else np.float16)
    same(quanto.unpack(got, shape=(outs, 96)), ref)


def test_quanto_bytes(linear, same):
    ref = linear(8, 6, 64, 64, zero="middle")
    got = quanto.pack(ref)
    np.testing.assert_array_equal(got[quanto.DATA].astype(int), ref.codes.astype(int) - 128)
    same(quanto.unpack(got), ref)


def test_quanto_needs_the_shape_and_checks_it(linear):
    arrays = quanto.pack(linear(4, 6, 96, 32))
    with pytest.raises(RangeError, match=r"shape = None, expected \(out, in\)"):
        quanto.unpack(arrays)
    with pytest.raises(ShapeError, match="18 groups of 32, expected them to fill 4 outputs x 96 inputs"):
        quanto.unpack(arrays, shape=(4, 96))
    with pytest.raises(ShapeError, match="18 groups of 32, expected them to fill 1073741824 outputs"):
        quanto.unpack(arrays, shape=(2**30, 2**30))
    with pytest.raises(RangeError, match=r"shape = \(0, 96\)"):
        quanto.unpack(arrays, shape=(0, 96))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_hqq_along_the_inputs(linear, same, bits):
    ref = linear(bits, 16, 96, 32, zero="float", dtype="float32")
    got = hqq.pack(ref)
    rows = ref.codes.reshape(-1, 32).tolist()
    np.testing.assert_array_equal(got["W_q"], naive.slabs(rows, bits, high_first=True))
    assert got["W_q"].dtype == (np.int32 if bits == 3 else np.uint8)
    same(hqq.unpack(got), ref)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_hqq_along_axis_0_groups_columns(linear, same, bits):
    rows = linear(bits, 48, 32, 32, zero="float", dtype="float32")
    ref = dataclasses.replace(rows, shape=(16, 96))
    got = hqq.pack(ref)
    np.testing.assert_array_equal(got["W_q"], naive.slabs(ref.codes.T.tolist(), bits, high_first=True))
    assert int(got["axis"]) == 0
    read = hqq.unpack(got)
    same(read, ref)
    np.testing.assert_array_equal(read.dequantize(), rows.dequantize().T.reshape(16, 96))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"shape": np.array([2**62, 2])}, ShapeError, r"\(24, 32\), expected \(144115188075855872, 32\)"),
        ({"shape": np.array([0, 96])}, ShapeError, "expected lengths of at least 1"),
        ({"group_size": np.array(0, np.int32)}, RangeError, "nbits, group_size, axis = 4, 0, 1"),
        ({"group_size": np.array(7, np.int32)}, RangeError, "expected nbits in"),
        ({"nbits": np.array(7, np.int32)}, RangeError, "nbits, group_size, axis = 7"),
        ({"nbits": np.zeros(3, np.int32)}, ShapeError, "expected one number"),
        ({"W_q": np.zeros((25, 32), np.uint8)}, ShapeError, r"\(25, 32\), expected \(24, 32\)"),
        ({"zero": np.zeros((48, 1), np.float16)}, QuantError, "zero.dtype = float16, expected float32"),
    ],
)
def test_hostile_hqq_is_named(linear, change, error, message):
    with pytest.raises(error, match=message):
        hqq.unpack({**hqq.pack(linear(4, 16, 96, 32, zero="float", dtype="float32")), **change})


def test_torchao(linear, same):
    ref = dataclasses.replace(linear(4, 6, 96, 32, zero="middle"), offset=np.full((6, 3), 0.25, np.float32))
    got = torchao.pack(ref)
    signed = (ref.codes.astype(int) - 8) % 16
    np.testing.assert_array_equal(
        got[torchao.DATA].view(np.uint8), [[lo + 16 * hi for lo, hi in zip(r[::2], r[1::2])] for r in signed]
    )
    assert got[torchao.SCALE].shape == (3, 6)
    same(torchao.unpack(got), ref)


def test_torchao_takes_integer_zero_points_where_their_value_is_exact(linear):
    ref = linear(4, 6, 96, 32)
    np.testing.assert_array_equal(torchao.unpack(torchao.pack(ref)).dequantize(), ref.dequantize())


def test_modelopt_pairs_outputs_in_its_exports(linear, same):
    ref = linear(4, 6, 96, 32, zero="middle", dtype="bfloat16")
    got = modelopt.pack_int4(ref)
    np.testing.assert_array_equal(got["weight"], naive.output_pairs(ref.codes.tolist()))
    same(modelopt.unpack_int4(got), ref)
    with pytest.raises(RangeError, match="the layout is symmetric"):
        modelopt.pack_int4(linear(4, 6, 96, 32))
    with pytest.raises(ShapeError, match="out = 5, expected a positive multiple of 2"):
        modelopt.pack_int4(linear(4, 5, 96, 32, zero="middle"))


def test_modelopt_qtensors_are_high_nibble_first_and_divide(linear, same):
    ref = linear(4, 6, 96, 32, zero="middle", divide=True)
    got = modelopt.pack_qtensor(ref)
    np.testing.assert_array_equal(got["quantized_data"], [naive.high_nibble_first(row) for row in ref.codes.tolist()])
    same(modelopt.unpack_qtensor(got), ref)
    with pytest.raises(RangeError, match="a scale that multiplies"):
        modelopt.pack_qtensor(linear(4, 6, 96, 32, zero="middle"))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("ins", [96, 80])
@pytest.mark.parametrize("zero", ["int", "middle", "float"])
def test_matmulnbits(linear, same, bits, ins, zero):
    ref = linear(bits, 6, ins, 32, zero=zero)
    got = onnx.pack_matmul(ref)
    assert got["B"].shape == (6, 3, 4 * bits)
    padded = np.zeros((6, 96), np.uint8)
    padded[:, :ins] = ref.codes
    if ins < 96 and zero != "float":
        padded[:, ins:] = ref.zero_point[:, -1:]
    np.testing.assert_array_equal(got["B"].reshape(6, -1), naive.stream(padded.tolist(), bits, word=8))
    if zero == "int":
        zeros = naive.stream(ref.zero_point.tolist(), bits, word=8)
        np.testing.assert_array_equal(got["zero_points"].reshape(6, -1), zeros)
    assert ("zero_points" in got) == (zero != "middle")
    same(onnx.unpack_matmul(got, bits, ins), ref)
    flat = {name: array.reshape(6, -1) if name != "B" else array for name, array in got.items()}
    same(onnx.unpack_matmul(flat, bits, ins), ref)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits, shape", [(4, (3, 5)), (2, (3, 3)), (4, ()), (2, (0, 4))])
def test_onnx_tensors_are_flat_and_low_first(bits, shape, signed):
    low = -(1 << (bits - 1)) if signed else 0
    codes = np.random.default_rng(0).integers(low, low + (1 << bits), shape).astype(np.int8 if signed else np.uint8)
    got = onnx.pack_tensor(codes, bits)
    unsigned = (codes.astype(int) % (1 << bits)).ravel().tolist()
    np.testing.assert_array_equal(got, naive.stream([unsigned], bits, word=8)[0])
    np.testing.assert_array_equal(onnx.unpack_tensor(got, shape, bits, signed), codes)
    with pytest.raises(ShapeError, match="expected uint8 for"):
        onnx.unpack_tensor(np.zeros(9, np.uint8), shape, bits)


@pytest.mark.parametrize("type_name", blocks.TYPES)
def test_ggml_blocks(linear, same, type_name):
    bits = blocks.TYPES[type_name][0]
    ref = linear(bits, 6, 96, 32, zero="offset" if type_name.endswith("1") else "middle")
    got = blocks.pack(ref, type_name)
    if bits < 8:
        head = 4 if type_name.endswith("1") else 2
        body = got["weight"].reshape(6, 3, -1)[..., head:]
        rows = [[naive.ggml_block(block, bits) for block in row] for row in ref.codes.reshape(6, 3, 32).tolist()]
        np.testing.assert_array_equal(body, rows)
    same(blocks.unpack(got, type_name), ref)
    np.testing.assert_array_equal(dequantize(got["weight"], type_name), ref.dequantize())


@pytest.mark.parametrize("type_name", blocks.TYPES)
def test_random_blocks_decode_as_ggml_decodes_them(type_name):
    layout = blocks.TYPES[type_name][1]
    data = np.random.default_rng(5).integers(0, 256, (4, 3 * layout.itemsize), dtype=np.uint8)
    ref = dequantize(data, type_name)
    got = blocks.unpack({"weight": data}, type_name)
    np.testing.assert_array_equal(got.dequantize(), ref)


def test_blocks_split_larger_groups_and_refuse_what_they_cannot_say(linear):
    ref = linear(4, 6, 256, 128, zero="middle")
    np.testing.assert_array_equal(blocks.unpack(blocks.pack(ref, "Q4_0"), "Q4_0").dequantize(), ref.dequantize())
    with pytest.raises(RangeError, match=r"zero_point\[0, 0\] = 0, expected 8, the only one of Q4_0"):
        blocks.pack(linear(4, 6, 256, 128), "Q4_0")
    with pytest.raises(ShapeError, match="groups of 48"):
        blocks.pack(linear(4, 6, 96, 48), "Q4_0")
    with pytest.raises(RangeError, match="bits = 4, expected 8 for Q8_0"):
        blocks.pack(ref, "Q8_0")
    with pytest.raises(RangeError, match="type_name = 'Q4_K'"):
        blocks.unpack({}, "Q4_K")


@pytest.mark.parametrize(
    "read, arrays",
    [
        (deepspeed.unpack, {"weight": np.zeros((2, 4), np.uint8), "quant_scale": np.zeros((3, 1, 1), np.float16)}),
        (torchao.unpack, {torchao.DATA: np.zeros((2, 4), np.uint8), torchao.SCALE: np.zeros((1, 3), np.float16)}),
        (modelopt.unpack_int4, {"weight": np.zeros((2, 4), np.uint8), "weight_scale": np.zeros((2, 1), np.float16)}),
        (
            modelopt.unpack_qtensor,
            {"quantized_data": np.zeros((2, 4), np.uint8), "scale": np.zeros((3, 1), np.float16)},
        ),
        (onnx.unpack_matmul, {"B": np.zeros((2, 1, 7), np.uint8), "scales": np.zeros(2, np.float32)}),
        (mlx.unpack, {"weight": np.zeros((2, 4), np.uint32), "scales": np.zeros((2, 3), np.float32)}),
        (lambda a: blocks.unpack(a, "Q4_0"), {"weight": np.zeros((2, 17), np.uint8)}),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(read, arrays):
    with pytest.raises(QuantError, match="expected"):
        read(arrays)
