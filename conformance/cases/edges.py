"""Records of checkpoints at the edges of what their layouts read and write: each is there for one condition."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from conformance.cases import Case, float_weights
from conformance.cases.bitsandbytes import INNER, MAP
from conformance.cases.judgement import judged
from conformance.cases.linear_weights import changed, weight
from conformance.cases.record_fields import fields_of
from refquant.layouts import Floating, Linear, pack
from refquant.layouts.bitsandbytes import STATE

NOTES = {
    "Edge": {
        "kind": "edge",
        "description": "The least or largest size, the one number that is not a multiple, a dtype that is rare.",
        "effect": "A condition is off by one: a file is refused that others read, or read as another weight.",
    },
    "Misfit": {
        "kind": "refusal",
        "description": "One step past the edge.",
        "effect": "The file is read, or written, as something else.",
    },
}
Arrays = Mapping[str, np.ndarray]
Tries = dict[str, tuple[Arrays, Mapping[str, object]]]  # label -> (arrays, what is told)


def cases() -> Iterator[Case]:
    """What is read, then the weights of some, then what is written."""
    for member, tries in _read().items():
        for label, (arrays, told) in tries.items():
            yield _judged(member, "edges-read", label, "read", arrays, told)
    for member, tries in _weighed().items():
        for label, (arrays, told) in tries.items():
            words = {"values": "exact"}
            yield Case(f"checkpoint.{member}", "edges-weight", label, "weight", arrays, told, ("Edge",), words=words)
    for label, (record, *members) in _records().items():
        for member in members:
            yield _judged(member, "edges-write", label, "write", *fields_of(record))
    for member, tries in _written().items():
        for label, (arrays, told) in tries.items():
            yield _judged(member, "edges-write", label, "write", arrays, told)


def _arrays(layout: str, **options: bool) -> dict[str, np.ndarray]:
    """The arrays of a layout for a weight of 4 bits."""
    return dict(pack(weight(4, **options), layout))


def _judged(member: str, group: str, label: str, op: str, arrays: Arrays, told: Mapping[str, object]) -> Case:
    return judged(f"checkpoint.{member}", group, label, op, arrays, told, "Edge", "Misfit")[0]


def _read() -> dict[str, Tries]:
    return {
        "awq-gemv": _awq(),
        "gptq": _gptq(),
        "pack-quantized": _packed(),
        "int-quantized": _integers(),
        "hqq": _hqq(),
        "onnx-matmulnbits": _onnx(),
        "bitsandbytes-nf4": _bitsandbytes(),
        "float-quantized": {
            "second-tile-of-one": (_tiles(1, 129), {}),
            "second-row-of-tiles": (_tiles(129, 1), {}),
        },
    }


def _awq() -> Tries:
    """One output: AutoAWQ counts the zero points by words, and pads them."""

    def arrays(ins: int, words: int, used: int) -> Arrays:
        scales = np.zeros((1, 8 * words), np.float16)
        scales[:, :used] = 0.5
        return {"qweight": np.full((1, ins // 8), 0x12345678, np.int32), "qzeros": np.full((1, words), 7, np.int32),
                "scales": scales}  # fmt: skip

    return {
        "groups-of-127": (arrays(1016, 2, 8), {"group_size": 127}),
        "nine-groups": (arrays(1152, 2, 9), {"group_size": 128}),
        "more-scales-than-groups": (arrays(128, 2, 3), {"group_size": 64}),
    }


def _gptq() -> Tries:
    """Groups of which one is longer, said by g_idx alone."""
    arrays = _arrays("gptq")
    uneven, single = np.arange(32) % 2 * (np.arange(32) < 24), np.ones(32)
    single[0] = 0
    orders = {"longer-first-group": uneven, "first-group-of-one": single}
    return {label: (arrays | {"g_idx": g_idx.astype(np.int32)}, {}) for label, g_idx in orders.items()}


def _packed() -> Tries:
    """Sizes that leave one reading, indices that say nothing new."""
    ordered = _arrays("pack-quantized", order=True)
    plain = np.arange(32) // 16
    wide = {"weight_packed": np.arange(13, dtype=np.int32)[None], "weight_shape": np.int64([1, 128])}
    small = {"weight_packed": np.ones((1, 1), np.int32), "weight_shape": np.int64([1, 2])}
    return {
        "wide-index": (ordered | {"weight_g_idx": ordered["weight_g_idx"].astype(np.int64)}, {"bits": 4}),
        "idle-index": (ordered | {"weight_g_idx": plain.astype(np.int32)}, {"bits": 4}),
        "one-output-of-aligned-words": (wide | {"weight_scale": np.ones((1, 1), np.float16)}, {}),
        "groups-of-none": (small | {"weight_scale": np.ones((1, 3), np.float16)}, {"bits": 4, "group_size": 0}),
    }


def _integers() -> Tries:
    zeros, weight = np.zeros((2, 4), np.int8), np.int8([[-8, 7, 0, 1]])
    one = {"weight_scale": np.ones((2, 1), np.float16)}
    deep = {"weight_scale": np.full((1, 1, 1), 0.5, np.float16), "weight_zero_point": np.full((1, 1, 1), 3, np.int8)}
    return {
        "no-bits": ({"weight": zeros} | one, {"bits": 0}),
        "scale-of-three-axes": ({"weight": weight} | deep, {"bits": 4}),
    }


def _hqq() -> Tries:
    arrays = _arrays("hqq")
    return {
        "bits-in-a-byte": (arrays | {"nbits": np.array(4, np.uint8)}, {}),
        "two-axes": (arrays | {"axis": np.int32([1, 1])}, {}),
    }


def _onnx() -> Tries:
    """Scales and zero points in two axes, and in one too many."""
    arrays = dict(_arrays("onnx-matmulnbits"))
    scales, zeros = arrays["scales"].reshape(8, 2), arrays["zero_points"]
    return {
        "scales-by-output": (arrays | {"scales": scales}, {}),
        "float-zeros-too-many": (arrays | {"zero_points": np.ones(17, np.float16)}, {}),
        "zeros-of-three-axes": (arrays | {"zero_points": zeros.reshape(1, 8, 1)}, {}),
    }


def _tiles(outs: int, ins: int) -> Arrays:
    """Tiles of 128 x 128, of which the second has one weight."""
    codes = np.arange(outs * ins, dtype=np.int64).reshape(outs, ins) % 120
    return {"weight": codes.astype(np.uint8), "weight_scale": np.ones((-(-outs // 128), -(-ins // 128)), np.float32)}


def _bitsandbytes() -> Tries:
    def arrays(state: dict[str, object], bytes_: int = 8, blocks: int = 1) -> tuple[Arrays, dict[str, object]]:
        said = {"quant_type": "nf4", "blocksize": 16, "dtype": "float32", "shape": [2, 8]} | state
        return {
            "weight": np.arange(bytes_, dtype=np.uint8)[:, None] * np.uint8(17),
            "weight.absmax": np.ones(blocks, np.float32),
            "weight.quant_map": MAP,
            STATE + "nf4": np.frombuffer(json.dumps(said).encode(), np.uint8),
        }, {}  # fmt: skip

    return {
        "one-weight": arrays({"shape": [1]}, 1),
        "no-axes": arrays({"shape": []}, 1),
        "largest-block": arrays({"blocksize": 1 << 20}),
        "block-too-large": arrays({"blocksize": (1 << 20) + 1}),
    }


def _weighed() -> dict[str, Tries]:
    """Products and differences that are rounded: the arithmetic is float32."""
    thirds = np.float32([[0.1, 1 / 3], [7.3, 11.7]])
    hqq = {
        "W_q": np.arange(32, dtype=np.uint8).reshape(2, 16) * np.uint8(37),
        "scale": np.float32([[0.3], [0.7], [1.1], [1.3]]),
        "zero": thirds.reshape(4, 1),
        "shape": np.int64([2, 32]),
        **{name: np.array(value, np.int32) for name, value in (("nbits", 4), ("group_size", 16), ("axis", 1))},
    }
    bytes_ = np.arange(8, dtype=np.uint8).reshape(2, 4) * np.uint8(31)
    divided = {"quantized_data": bytes_, "scale": np.float32([[3], [7]])}
    minimum = {"weight": bytes_, "quant_scale": np.float32([[[3]], [[7]]]), "quant_min": np.float32([[[0.1]], [[-1]]])}
    tiles = {
        "weight": (np.arange(3 * 64).reshape(3, 64) % 120).astype(np.uint8),
        "weight_scale": np.float32([[1, 0.5], [0.25, 3]]),
    }
    return {
        "hqq": {"thirds": (hqq, {})},
        "modelopt-qtensor": {"divided": (divided, {})},
        "deepspeed": {"divided": (minimum, {})},
        "float-quantized": {"tiles": (tiles, {"block": [2, 32]})},
    }


def _records() -> dict[str, tuple[Linear | Floating | str, ...]]:
    """Label -> record, and the layouts that are asked to write it."""
    row, middle = weight(4, "offset", size=32), weight(4, "middle", size=32)
    third = np.full((8, 1), 1 / 3, np.float32)
    odd, eight = weight(4, "middle", ins=16, size=16), weight(8, size=32)
    floats = float_weights.weights()
    return {
        "columns-of-132": (weight(4, ins=132, size=132), "awq-gemv", "awq-gemv_fast"),
        "ordered": (weight(4, "middle", ins=64, size=32, order=True), "awq-gemv_fast"),
        "of-8-bits": (weight(8, ins=64, size=32), "awq-gemv_fast"),
        "divided": (weight(4, ins=32, size=32, divide=True), "mlx"),
        "divided-odd-columns": (weight(4, "offset", ins=33, size=33, divide=True), "deepspeed"),
        "divided-ragged": (weight(4, "offset", ins=40, size=16, divide=True), "deepspeed"),
        "no-float16-scale": (changed(middle, scale=third), "gguf-Q4_0"),
        "no-float16-minimum": (changed(row, offset=third), "gguf-Q4_1"),
        "another-zero": (weight(4, ins=32, size=32), "gguf-Q4_0"),
        "zero-times-third": (changed(middle, scale=third, zero_point=np.full((8, 1), 3, np.int16), dtype="float32"),
                             "mlx", "torchao-int4"),
        "odd-outputs": (changed(odd, codes=odd.codes[:7], scale=odd.scale[:7], zero_point=odd.zero_point[:7]),
                        "modelopt-int4"),
        "divided-ragged-middle": (weight(4, "middle", ins=40, size=16, divide=True), "modelopt-qtensor"),
        "offset-of-128": (changed(eight, zero_point=0 * eight.zero_point, offset=-128 * eight.scale), "quanto"),
        "8-bits-another-zero": (eight, "quanto"),
        "8-bits-two-groups": (weight(8, "middle"), "quanto"),
        "element-under-another-scale": (floats["e2m3-e4m3fn-16"], "mxfp6"),
        "least-tensor-scale": (replace(floats["e2m1-e4m3fn-16"], tensor_scale=np.float32(1e-45)),
                               "nvfp4-pack-quantized"),
        "tensor-scale": (replace(floats["e2m1-e8m0-32"], tensor_scale=np.float32(0.5)), "mxfp4-pack-quantized"),
        "largest-zero": (changed(row, scale=np.ones_like(third), offset=np.full_like(third, -(2.0**14))), "hqq"),
        **{f"zero-of-{zero}": (changed(middle, zero_point=np.full((8, 1), zero, np.float32)), "quanto")
           for zero in (-65528, 32768, 65544)},
        "padded": (weight(4, ins=20), "onnx-matmulnbits"),
        "padded-float-zero": (changed(weight(4, "float", ins=20), zero_point=np.full((8, 2), 7.5, np.float32)),
                              "onnx-matmulnbits"),
        "odd-groups": (changed(odd, codes=odd.codes[:7], scale=odd.scale[:7], zero_point=odd.zero_point[:7]), "hqq"),
    }  # fmt: skip


def _written() -> dict[str, Tries]:
    """Records of which one field does not fit, where the layout itself would not notice."""
    five, said5 = fields_of(weight(5))
    seven, said7 = fields_of(weight(7, "middle", size=32))
    four, said4 = fields_of(weight(4))
    floating = {"codes": np.full((1, 64), 16, np.uint8), "element": "e2m1"}
    mx = {"codes": floating["codes"], "scale": np.full((1, 2), 100, np.uint8)}
    nv = {"codes": floating["codes"], "scale": np.full((1, 4), 100, np.uint8)}
    inner = {"nested_codes": np.uint8([0, 255, 100, 7]), "nested_quant_map": INNER}
    plain = {"codes": np.arange(16, dtype=np.uint8), "quant_map": MAP}
    said = {"quant_type": "nf4", "blocksize": 4, "shape": [2, 8], "nested_offset": 0.1}
    return {
        "hqq": {"code-of-6-bits": (five | {"codes": np.full_like(five["codes"], 32)}, said5)},
        "int-quantized": {"code-of-8-bits": (seven | {"codes": np.full_like(seven["codes"], 128)}, said7)},
        "pack-quantized": {
            "no-bits": (four | {k: np.zeros_like(four[k]) for k in ("codes", "zero_point")}, said4 | {"bits": 0})
        },
        "gguf-MXFP4": {"code-of-5-bits": (mx, {"element": "e2m1", "scale_dtype": "e8m0", "block": [1, 32]})},
        "gguf-NVFP4": {"code-of-5-bits": (nv, {"element": "e2m1", "scale_dtype": "e4m3fn", "block": [1, 16]})},
        "bitsandbytes-nf4": {
            f"nested-blocks-of-{size}": (
                plain | inner | {"nested_absmax": np.float32([1, 2, 3, 4])}, said | {"nested_blocksize": size}
            )
            for size in (1, 0)
        },
    }  # fmt: skip
