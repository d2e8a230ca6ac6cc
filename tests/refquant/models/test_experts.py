import numpy as np
import pytest

from refquant.models.experts import mixture, route, sigmoid


def test_the_most_probable_experts_are_chosen_by_falling_weight():
    scores = np.log([[1.0, 4, 2, 3], [5, 1, 1, 1]])
    chosen, weights = route(scores, 2, normalized=True)
    np.testing.assert_array_equal(chosen, [[1, 3], [0, 1]])  # of equal ones the lower number
    np.testing.assert_allclose(weights, [[4 / 7, 3 / 7], [5 / 6, 1 / 6]], rtol=1e-14)
    _, plain = route(scores, 2, normalized=False)
    np.testing.assert_allclose(plain, [[0.4, 0.3], [5 / 8, 1 / 8]], rtol=1e-14)


def test_all_experts_together_are_a_softmax():
    scores = np.random.default_rng(0).normal(size=(5, 7))
    chosen, weights = route(scores, 7, normalized=False)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(np.sort(chosen, axis=1), np.tile(np.arange(7), (5, 1)))


@pytest.mark.parametrize("n_used", [1, 3])
@pytest.mark.parametrize("normalized", [True, False])
def test_the_mixture_is_the_weighed_sum_token_by_token(n_used, normalized):
    rng = np.random.default_rng([n_used, normalized])
    h, scores, matrices = rng.normal(size=(9, 4)), rng.normal(size=(9, 5)), rng.normal(size=(5, 4, 4))
    asked = []

    def expert(e, x):
        asked.append((e, len(x)))
        return x @ matrices[e].T

    got = mixture(h, scores, n_used, normalized, expert)
    chosen, weights = route(scores, n_used, normalized)
    for t in range(9):
        ref = sum(w * (matrices[e] @ h[t]) for e, w in zip(chosen[t], weights[t]))
        np.testing.assert_allclose(got[t], ref, rtol=0, atol=1e-13)
    assert sum(count for _, count in asked) == 9 * n_used
    assert len({e for e, _ in asked}) == len(asked)  # each expert is asked once, with all of its tokens


def test_the_sigmoid_has_its_limits_and_no_warning():
    np.testing.assert_array_equal(sigmoid(np.array([-1e4, 0, 1e4], np.float32)), [0, 0.5, 1])
