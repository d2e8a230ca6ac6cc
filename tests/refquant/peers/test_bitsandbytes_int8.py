"""LLM.int8() of bitsandbytes on a CPU: statistics, codes, outlier columns, products."""

import numpy as np
import pytest
from peer_inputs import differing, matrix

from refquant import llm_int8, quantize

pytestmark = pytest.mark.filterwarnings("ignore")
DEFAULT = llm_int8.DIALECTS["bitsandbytes-default"]


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_codes_statistics_and_outlier_columns_equal_ours(peer, threshold):
    torch, F = peer("torch"), peer("bitsandbytes.functional")
    x = matrix(128)
    if threshold:
        x = x[np.abs(x).max(axis=1) < 12].copy()
        x[3, 17] = -6.0  # exactly the threshold is an outlier
    codes, absmax, outliers = F.int8_vectorwise_quant(torch.tensor(x), threshold)
    got = llm_int8.encode(x, threshold, DEFAULT)
    np.testing.assert_array_equal(absmax.numpy(), got.absmax)
    np.testing.assert_array_equal(codes.numpy(), got.codes)
    np.testing.assert_array_equal(outliers.numpy() if threshold else [], got.outliers)
    if not threshold:
        assert differing(128, codes.numpy(), quantize(x, "int8-token@bitsandbytes").codes) == {}
        back = torch.ops.bitsandbytes.int8_vectorwise_dequant(codes, absmax)
        np.testing.assert_array_equal(back.numpy(), got.dequantize())


def test_the_product_equals_ours(peer):
    torch = peer("torch")
    peer("bitsandbytes")
    rng = np.random.default_rng(3)
    X, W = rng.standard_normal((8, 64), dtype=np.float32), rng.standard_normal((16, 64), dtype=np.float32)
    X[2, 5] = 40
    x, w = llm_int8.encode(X, 6.0, DEFAULT), llm_int8.encode(W, rule=DEFAULT)
    tensors = [torch.tensor(a) for a in (X, x.codes, w.codes, x.absmax, w.absmax)]
    scaled = torch.ops.bitsandbytes.int8_scaled_mm(*tensors[1:], dtype=torch.float32)
    no_outliers = llm_int8.Rows(w.codes, w.absmax, w.outliers)
    masked = X.copy()
    masked[:, x.outliers] = 0
    np.testing.assert_array_equal(x.codes, llm_int8.encode(masked, rule=DEFAULT).codes)
    np.testing.assert_array_equal(scaled.numpy(), llm_int8.matmul(masked, no_outliers, threshold=0, rule=DEFAULT))
    mixed, _ = torch.ops.bitsandbytes.int8_mixed_scaled_mm(*tensors, torch.tensor(x.outliers))
    np.testing.assert_allclose(mixed.numpy(), llm_int8.matmul(X, w, rule=DEFAULT), rtol=1e-6, atol=1e-5)
