"""Adam: a gradient step whose size each parameter scales by its own history.

    m = b1 m + (1 - b1) g             v = b2 v + (1 - b2) g^2
    p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)            t = 1, 2, ...

Shapes      any; p, g, m and v alike. Arithmetic in the dtype of p.
Edges       g = 0 from the first step on leaves p unchanged. p is not changed in place: `step` returns the new one.
Source      Kingma & Ba 2015, arXiv:1412.6980, alg. 1; the defaults are those of the paper.
"""

import numpy as np


class Adam:
    """The state of one parameter array."""

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8):
        self.lr, self.betas, self.epsilon, self.steps = lr, betas, epsilon, 0
        self._mean: np.ndarray | float = 0.0
        self._square: np.ndarray | float = 0.0

    def step(self, p: np.ndarray, g: np.ndarray) -> np.ndarray:
        """p after one step against the gradient g."""
        first, second = self.betas
        self.steps += 1
        self._mean = first * self._mean + (1 - first) * g
        self._square = second * self._square + (1 - second) * np.square(g)
        mean = self._mean / (1 - first**self.steps)
        size = np.sqrt(self._square / (1 - second**self.steps)) + self.epsilon
        return (p - self.lr * mean / size).astype(p.dtype)
