"""AutoAWQ: its three packers and its unpacking, on the CPU."""

import numpy as np
import pytest

from refquant.layouts import awq
from refquant.layouts.linear import Linear

pytestmark = pytest.mark.filterwarnings("ignore")
OUTS, INS, SIZE = 32, 256, 64


@pytest.fixture(scope="module")
def ref() -> Linear:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.1, (OUTS, INS // SIZE)).astype(np.float16).astype(np.float32)
    zero = rng.integers(0, 16, scale.shape).astype(np.int16)
    return Linear(rng.integers(0, 16, (OUTS, INS), dtype=np.uint8), scale, zero, 4, SIZE)


def packed(peer, ref, kind, transposed):
    torch = peer("torch")
    maker = getattr(peer(f"awq.modules.linear.{kind.lower()}"), f"WQLinear_{kind.replace('_F', 'F')}")
    layer = torch.nn.Linear(INS, OUTS, bias=False)
    layer.weight.data = torch.tensor(ref.dequantize())
    scales, zeros = torch.tensor(ref.scale), torch.tensor(ref.zero_point.astype(np.float32))
    if transposed:
        scales, zeros = scales.t().contiguous(), zeros.t().contiguous()
    module = maker.from_linear(layer, 4, SIZE, scales=scales, zeros=zeros)
    return {name: getattr(module, name).numpy() for name in ("qweight", "qzeros", "scales")}


def test_gemm_writes_our_bytes(peer, ref):
    got = packed(peer, ref, "GEMM", transposed=True)
    for name, array in awq.pack_gemm(ref).items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_gemv_writes_our_bytes(peer, ref):
    got = packed(peer, ref, "GEMV", transposed=False)
    for name, array in awq.pack_gemv(ref).items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_gemv_fast_writes_our_codes_and_rounds_its_zeros(peer, ref):
    got = packed(peer, ref, "GEMV_Fast", transposed=False)
    read = awq.unpack_gemv_fast(got)
    np.testing.assert_array_equal(read.codes, ref.codes)
    np.testing.assert_array_equal(read.scale, ref.scale)
    rounded = (-ref.scale * ref.zero_point).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(read.offset, rounded)
    again = awq.pack_gemv_fast(read)
    for name in got:
        np.testing.assert_array_equal(again[name], got[name], err_msg=name)


def test_its_decoder_reads_our_gemm(peer, ref):
    torch, utils = peer("torch"), peer("awq.utils.packing_utils")
    t = {name: torch.tensor(np.array(array)) for name, array in awq.pack_gemm(ref).items()}
    got = utils.dequantize_gemm(t["qweight"], t["qzeros"], t["scales"].float(), 4, SIZE)
    np.testing.assert_array_equal(got.numpy().T, ref.dequantize())


def test_its_conversion_for_exllama_is_our_transcode_to_gptq(peer, ref):
    torch, utils = peer("torch"), peer("awq.utils.packing_utils")
    from refquant.layouts import transcode

    arrays = awq.pack_gemm(ref)
    got = transcode(arrays, "awq-gemm", "gptq")
    qweight, qzeros = utils.unpack_reorder_pack(
        torch.tensor(np.array(arrays["qweight"])), torch.tensor(np.array(arrays["qzeros"])), 4
    )
    np.testing.assert_array_equal(qweight.numpy(), got["qweight"])
    whole = (ref.zero_point.T.reshape(-1, OUTS // 8, 8) > 0).all(axis=-1)  # words without a field that wraps
    np.testing.assert_array_equal(qzeros.numpy()[whole], got["qzeros"][whole])
