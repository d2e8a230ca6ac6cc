"""Llama, Qwen2 and Qwen3 in NumPy, with experts or without: configuration, tensors, the forward pass of reference."""

from refquant.models.cache import KVCache
from refquant.models.config import Mixture, ModelConfig, RopeScaling
from refquant.models.forward import Oracle
from refquant.models.tensors import check_tensors, expected_tensors, model_tensors

__all__ = [
    "KVCache",
    "Mixture",
    "ModelConfig",
    "Oracle",
    "RopeScaling",
    "check_tensors",
    "expected_tensors",
    "model_tensors",
]
