"""gptqmodel: its packer for v2 and planes, its conversion between v1 and v2, its decoder, on the CPU."""

import numpy as np
import pytest

import refquant
from refquant.layouts import gptq
from refquant.layouts.linear import Linear

pytestmark = pytest.mark.filterwarnings("ignore")
OUTS, INS, SIZE = 64, 128, 32


def record(bits: int, act_order: bool = False) -> Linear:
    rng = np.random.default_rng(bits)
    scale = rng.uniform(0.01, 0.1, (OUTS, INS // SIZE)).astype(np.float16).astype(np.float32)
    zero = rng.integers(0, 1 << bits, scale.shape).astype(np.int16)
    zero[::5] = 0
    codes = rng.integers(0, 1 << bits, (OUTS, INS), dtype=np.uint8)
    order = rng.permutation(np.arange(INS, dtype=np.int32) // SIZE) if act_order else None
    return Linear(codes, scale, zero, bits, SIZE, g_idx=order)


def module_of(peer, bits: int, form: str):
    torch, linear = peer("torch"), peer("gptqmodel.nn_modules.qlinear.torch").TorchLinear
    return linear(
        bits=bits,
        group_size=SIZE,
        sym=False,
        desc_act=False,
        in_features=INS,
        out_features=OUTS,
        bias=False,
        pack_dtype=torch.int32,
        format=form,
        register_buffers=True,
    )


def tensors(peer, arrays):
    torch = peer("torch")
    return {name: torch.tensor(np.array(array)) for name, array in arrays.items()}


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    "bits, form",
    [
        (2, "gptq_v2"),
        (3, "gptq_v2"),
        (4, "gptq_v2"),
        (8, "gptq_v2"),
        (3, "gptq_p"),
        (5, "gptq_p"),
        (6, "gptq_p"),
        (7, "gptq_p"),
    ],
)
def test_its_packer_writes_our_bytes(peer, monkeypatch, bits, form, act_order):
    monkeypatch.setenv("GPTQMODEL_DISABLE_PACK_EXT", "1")  # its Python path; the extension would be compiled first
    torch = peer("torch")
    ref = record(bits, act_order)
    ours = gptq.pack(ref, form)
    module = module_of(peer, bits, form)
    layer = torch.nn.Linear(INS, OUTS, bias=False)
    layer.weight.data = torch.tensor(ref.dequantize())
    t = tensors(peer, {"scale": ref.scale, "zero": ref.zero_point.astype(np.float32), "g_idx": ours["g_idx"]})
    module.pack_block(layer, t["scale"], t["zero"].to(torch.int32), t["g_idx"])
    for name in ("qweight", "qzeros", "scales", "g_idx"):
        np.testing.assert_array_equal(getattr(module, name).numpy(), ours[name], err_msg=name)


@pytest.mark.parametrize(
    "bits, form", [(2, "gptq_v2"), (3, "gptq_v2"), (4, "gptq_v2"), (8, "gptq_v2"), (3, "gptq_p"), (6, "gptq_p")]
)
def test_it_decodes_what_we_pack(peer, bits, form):
    ref = record(bits, act_order=True)
    module = module_of(peer, bits, form)
    for name, tensor in tensors(peer, gptq.pack(ref, form)).items():
        setattr(module, name, tensor)
    module.scales = module.scales.float()
    module.post_init()
    np.testing.assert_array_equal(module.dequantize_weight().numpy().T, ref.dequantize())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_its_conversions_between_version_1_and_2_are_word_arithmetic(peer, bits):
    model = peer("gptqmodel.utils.model")
    torch = peer("torch")
    ref = record(bits)
    assert (ref.zero_point == 0).any()
    module = module_of(peer, bits, "gptq_v2")
    second, first = gptq.pack(ref, "gptq_v2")["qzeros"], gptq.pack(ref, "gptq", carry="word")["qzeros"]

    class Config:
        pack_dtype = torch.int32

    Config.bits = bits
    module.qzeros = torch.tensor(np.array(second))
    model.convert_gptq_v2_to_v1_format_module(module, Config)
    np.testing.assert_array_equal(module.qzeros.numpy(), first)
    model.convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
    np.testing.assert_array_equal(module.qzeros.numpy(), second)
    if bits != 3:
        assert (first != gptq.pack(ref, "gptq")["qzeros"]).any()


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes(peer, bits):
    planar, torch = peer("gptqmodel.utils.planar_packing"), peer("torch")
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (96, 20))
    ours = refquant.layouts.words.pack_planar(np.ascontiguousarray(codes.T.astype(np.uint8)), bits).T
    np.testing.assert_array_equal(planar.planar_pack_rows(torch.tensor(codes), bits).numpy(), ours)
