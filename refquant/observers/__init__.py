"""Observers: ranges from data that comes in batches, for scales that are fixed before a model runs.

    observer           range                                                              merging
    MinMax             smallest and largest value                                         exact
    MovingAverage      min and max of each batch, averaged: m += c (x - m), c = 0.01      mean weighted by batches
    Histogram          the part of a histogram that quantizes with the least L2 error     within one bin
    Percentile         +- the magnitude that a share of the values does not exceed        exact
    Entropy            +- the magnitude with the least Kullback-Leibler divergence        exact
    MeanSquaredError   the range, shrunk in steps, with the least sum |x - x^|^p          mean weighted by batches

All of them have

    update(batch)      look at more data: float16/32/64 or bfloat16, finite, not empty
    merge(other)       take over what another observer with the same settings saw, on another machine say
    ranges()           (lo, hi) float32, in the shape of the scales of the granularity, () for a tensor
    affine(rule)       (scale, zero_point) of a linear rule for that range: quantize(..., scale=, zero_point=) takes
                       them; zero_point is None for a symmetric rule

`granularity` says who shares a range (groups.py): TENSOR, CHANNEL for the rows of a weight, channel1 for the columns of
activations (tokens, in). It must give every batch the same shape of scales. Without a batch, ranges() raises
QuantError.

    >>> import numpy as np
    >>> observer = MinMax()
    >>> observer.update(np.array([-1.0, 3.0])), observer.update(np.array([0.5]))
    (None, None)
    >>> [a.tolist() for a in observer.affine("uint8")]
    [0.01568627543747425, 64]
"""

from refquant.observers.entropy import Entropy
from refquant.observers.histogram import Histogram
from refquant.observers.mean_squared_error import MeanSquaredError
from refquant.observers.min_max import MinMax, MovingAverage
from refquant.observers.percentile import Percentile

__all__ = ["Entropy", "Histogram", "MeanSquaredError", "MinMax", "MovingAverage", "Percentile"]
