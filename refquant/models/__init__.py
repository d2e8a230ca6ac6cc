"""Llama, Qwen2 and Qwen3 in NumPy: configuration, tensor lists and the forward pass that other code is measured by."""

from refquant.models.cache import KVCache
from refquant.models.config import ModelConfig, RopeScaling
from refquant.models.forward import Oracle
from refquant.models.tensors import check_tensors, expected_tensors, model_tensors

__all__ = ["KVCache", "ModelConfig", "Oracle", "RopeScaling", "check_tensors", "expected_tensors", "model_tensors"]
