"""Every layout is told from every other, versions and conventions by the numbers, and ambiguity is said."""

import json

import numpy as np
import pytest

import refquant
from refquant.layouts import LAYOUTS, bitsandbytes, detect, detect_file, gptq, pack, safetensors_file
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear, middle


@pytest.fixture(scope="module")
def trained():
    """`trained(bits, asymmetric)`: a Gaussian matrix, linearly quantized, as Linear."""

    def make(bits=4, asymmetric=True, group_size=64, outs=64, ins=256, shift=0.0):
        W = np.random.default_rng([bits, outs]).normal(shift, 0.02, (outs, ins)).astype(np.float32)
        q = refquant.quantize(W, f"uint{bits}-g{group_size}-f16" + ("" if asymmetric else "-sym"))
        zero = q.zero_point.astype(np.int16) if asymmetric else middle(bits, q.scale.shape)
        return Linear(np.array(q.codes), np.array(q.scale), zero, bits, group_size)

    return make


def as_offset(linear: Linear) -> Linear:
    exact = np.float16(-linear.zero_point.astype(np.float32) * linear.scale).astype(np.float32)
    return Linear(
        linear.codes, linear.scale, np.zeros_like(linear.zero_point), linear.bits, linear.group_size, offset=exact
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_the_version_of_gptq_zeros_is_told_by_the_numbers(trained, bits, asymmetric, version):
    got = detect(pack(trained(bits, asymmetric, outs=256, ins=1024), version))
    assert got.layouts == (version,), got.evidence
    assert got.options == {"bits": bits, "group_size": 64}
    wanted = "weights have a mean near 0" if asymmetric else "every zero field is"
    assert wanted in " ".join(got.evidence)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_planes_are_told_from_a_stream(trained, bits):
    assert detect(pack(trained(bits), "gptq_p")).layouts == ("gptq_p",)


def test_weights_that_are_not_centred_leave_the_version_open(trained):
    got = detect(pack(trained(shift=0.003), "gptq"))
    assert got.layouts == ("gptq", "gptq_v2")
    assert not got.certain
    assert "neither is near 0" in got.evidence[-1]


def test_a_handful_of_weights_decides_nothing(trained):
    assert "too few weights to tell" in detect(pack(trained(8, outs=32, ins=64), "gptq")).evidence[-1]


def test_random_three_bit_words_are_ambiguous(linear):
    assert set(detect(pack(linear(3, 64, 256, 64), "gptq")).layouts) >= {"gptq", "gptq_v2"}


def test_zero_fields_of_ones_and_act_order_are_mentioned(linear, trained):
    arrays = gptq.pack(linear(4, g_idx=True))
    said = " ".join(detect(arrays).evidence)
    assert "act-order" in said
    assert "zero fields are all ones" in said


SIMPLE = ("awq-gemm", "awq-gemv", "pack-quantized", "hqq", "quanto")
SYMMETRIC = ("awq-gemv_fast", "modelopt-int4", "torchao-int4")


@pytest.mark.parametrize("name", [*SIMPLE, *SYMMETRIC])
def test_integer_layouts_are_told_by_names_and_shapes(trained, name):
    record = trained(4, asymmetric=name not in SYMMETRIC)
    got = detect(pack(record, name))
    assert got.layouts == (name,), got.evidence


@pytest.mark.parametrize("bits, group_size", [(2, 128), (4, 64), (8, 32), (4, 32), (3, 64), (6, 32)])
def test_bits_of_mlx_are_told_by_the_numbers(trained, bits, group_size):
    got = detect(pack(as_offset(trained(bits, group_size=group_size)), "mlx"))
    assert got.layouts == ("mlx",)
    assert got.options == {"bits": bits, "group_size": group_size}, got.evidence


def test_mlx_of_random_numbers_stays_open():
    rng = np.random.default_rng(0)
    arrays = {"weight": rng.integers(0, 2**32, (8, 32), dtype=np.uint32)}
    arrays |= {"scales": np.ones((8, 4), np.float16), "biases": np.ones((8, 4), np.float16)}
    got = detect(arrays)
    assert got.options == {}
    assert "ambiguous" in got.evidence[-1]


def test_other_families(linear):
    deep = detect(pack(linear(4, zero="offset", divide=True), "deepspeed"))
    tensor = detect(pack(linear(4, zero="middle", divide=True), "modelopt-qtensor"))
    assert (deep.layouts, tensor.layouts) == (("deepspeed",), ("modelopt-qtensor",))
    assert detect(pack(linear(8), "int-quantized")).layouts == ("int-quantized",)
    assert detect(pack(linear(8, ins=64, zero="middle"), "quanto")).layouts == ("quanto",)
    got = detect(pack(linear(4), "onnx-matmulnbits"))
    assert got.layouts == ("onnx-matmulnbits",)
    codes = np.zeros((4, 64), np.int8)
    assert detect(bitsandbytes.pack_int8(bitsandbytes.RowInt8(codes, np.ones(4, np.float32)))).certain
    levels = np.linspace(-1, 1, 16).astype(np.float32)
    nf4 = bitsandbytes.FourBit(np.zeros(64, np.uint8), np.ones(1, np.float32), levels, "nf4", 64, (8, 8))
    assert detect(bitsandbytes.pack(nf4)).layouts == ("bitsandbytes-nf4",)


def floats(element="e2m1", scale="e4m3fn", block=16, tensor=None, divide=False) -> Floating:
    scales = np.full((4, 192 // block), 0x70, np.uint8)
    return Floating(np.ones((4, 192), np.uint8), element, scales, scale, (1, block), tensor, divide)


@pytest.mark.parametrize(
    "name, record",
    [
        ("nvfp4-pack-quantized", floats(tensor=np.float32(5000), divide=True)),
        ("modelopt-nvfp4", floats(tensor=np.float32(2e-4))),
        ("mxfp4-pack-quantized", floats(scale="e8m0", block=32)),
        ("mxfp6", floats("e2m3", "e8m0", 32)),
        ("mxfp8-quantized", floats("e4m3fn", "e8m0", 32)),
        (
            "float-quantized",
            Floating(np.ones((4, 192), np.uint8), "e4m3fn", np.ones((4, 1), np.float32), "float16", (1, 192)),
        ),
    ],
)
def test_small_floats_are_told_by_names_and_widths(name, record):
    got = detect(pack(record, name))
    assert got.layouts == (name,), got.evidence


def test_a_tensor_scale_of_the_other_convention_is_noticed():
    arrays = pack(floats(tensor=np.float32(2e-4), divide=True), "nvfp4-pack-quantized")
    got = detect(arrays)
    assert got.layouts == ("nvfp4-pack-quantized", "modelopt-nvfp4")
    assert "under a wrong name" in got.evidence[-1]


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({}, "no layout has exactly nothing"),
        ({"weight": np.zeros((2, 2), np.float32)}, "no layout has exactly weight"),
        ({"qweight": np.zeros(3), "qzeros": np.zeros(3), "scales": np.zeros(3)}, "are no matrices"),
        (
            {"qweight": np.zeros((5, 7), np.int32), "qzeros": np.zeros((2, 2), np.int32), "scales": np.zeros((3, 3))},
            "neither",
        ),
        ({"weight_packed": np.zeros((2, 5), np.uint8), "weight_scale": np.zeros((2, 1), np.uint8)}, "neither 16"),
        ({"weight": np.zeros((2, 4)), "weight_scale": np.zeros(1)}, "float64 is no code"),
    ],
)
def test_what_is_no_layout_is_said_to_be_none(arrays, said):
    got = detect(arrays)
    assert got.layouts == ()
    assert said in " ".join(got.evidence)


@pytest.mark.parametrize("name", [n for n in LAYOUTS if not n.startswith("gguf")])
def test_arrays_of_nonsense_never_raise(name):
    rng = np.random.default_rng(9)
    shapes = ((), (3,), (4, 8), (2, 3, 4), (0, 4))
    for dtype in (np.uint8, np.int32, np.float16, np.float32, np.int64):
        for _ in range(4):
            names = (*LAYOUTS[name].required, *LAYOUTS[name].optional)
            arrays = {n: np.zeros(shapes[rng.integers(len(shapes))], dtype) for n in names}
            assert isinstance(detect(arrays).evidence, tuple)


def test_files_are_read_layer_by_layer(trained, tmp_path):
    tensors = {"norm.weight": np.zeros(4, np.float32), "lm_head.weight": np.zeros((2, 2), np.float16)}
    for layer, version in (("model.a", "gptq"), ("model.b", "gptq_v2")):
        tensors |= {f"{layer}.{name}": array for name, array in pack(trained(), version).items()}
    entries = [(name, safetensors_file.NAMES[a.dtype.name], a) for name, a in tensors.items()]
    safetensors_file.write(tmp_path / "x.safetensors", entries)
    got = detect_file(tmp_path / "x.safetensors")
    assert {name: found.layouts for name, found in got.items()} == {"model.a.": ("gptq",), "model.b.": ("gptq_v2",)}
    json.dumps([found.options for found in got.values()])


def test_gguf_files_say_it_themselves(tmp_path):
    data = refquant.gguf.quantize(np.ones((2, 32), np.float32), "Q4_1")
    refquant.gguf.write(tmp_path / "x.gguf", {}, {"a": (data, "Q4_1"), "b": (np.ones(3, np.float32), "F32")})
    got = detect_file(tmp_path / "x.gguf")
    assert {name: found.layouts for name, found in got.items()} == {"a": ("gguf-Q4_1",)}
