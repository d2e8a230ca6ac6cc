import math

import numpy as np
import pytest

from refquant.models.attention import attend, softmax


def naive_attend(q, k, v, scale):
    tokens, n_head, _ = q.shape
    context, n_head_kv, _ = k.shape
    out = np.zeros((tokens, n_head, v.shape[-1]))
    for t in range(tokens):
        for h in range(n_head):
            seen = range(context - tokens + t + 1)
            kv = h // (n_head // n_head_kv)
            e = [math.exp(scale * float(q[t, h] @ k[c, kv])) for c in seen]
            out[t, h] = sum(w * v[c, kv] for w, c in zip(e, seen)) / sum(e)
    return out.reshape(tokens, -1)


@pytest.mark.parametrize("tokens, context", [(1, 1), (1, 7), (4, 4), (3, 8)])
@pytest.mark.parametrize("n_head, n_head_kv", [(4, 4), (4, 2), (6, 1)])
def test_every_token_sees_itself_and_the_past_through_its_group(tokens, context, n_head, n_head_kv):
    rng = np.random.default_rng([tokens, context, n_head, n_head_kv])
    q, k = rng.normal(size=(tokens, n_head, 8)), rng.normal(size=(context, n_head_kv, 8))
    v = rng.normal(size=(context, n_head_kv, 5))
    np.testing.assert_allclose(attend(q, k, v, 0.3), naive_attend(q, k, v, 0.3), rtol=1e-12, atol=1e-13)


def test_the_future_has_no_influence():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 6, 2, 8)).astype(np.float32)
    ref = attend(q, k, v, 1.0)
    assert ref.dtype == np.float32
    k[4:], v[4:] = 100, 100
    got = attend(q, k, v, 1.0)
    np.testing.assert_array_equal(got[:4], ref[:4])
    assert (got[4:] != ref[4:]).any()


def test_softmax_of_large_scores_does_not_overflow():
    x = np.array([[1e30, 1e30, -np.inf], [-1e30, -np.inf, -1e30]], np.float32)
    np.testing.assert_array_equal(softmax(x), np.array([[0.5, 0.5, 0], [0.5, 0, 0.5]], np.float32))
