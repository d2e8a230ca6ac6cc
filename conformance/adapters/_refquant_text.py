"""refquant on models: layers, tokenizers, templates, whole models. Imported by the adapter of that name.

What a file is read for is kept: a tokenizer, a template's process, a model's weights.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from conformance import vectors
from conformance.protocol import Arrays, Unsupported


def rms_norm(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x, weight -> y."""
    from refquant.models import norm

    return {"y": norm.rms_norm(_wide(inputs["x"]), _wide(inputs["weight"]), params["eps"]).astype(np.float32)}


def rotate(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """x (tokens, heads, head_dim), positions -> y."""
    from refquant.models import rope

    dims = params["dims"]
    speed = params["base"] ** (-2.0 * np.arange(dims // 2) / dims)
    cos, sin = rope.table(speed, inputs["positions"], 1.0)
    return {"y": rope.rotate(_wide(inputs["x"]), cos, sin, params["style"]).astype(np.float32)}


def attend(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """q (tokens, heads, dim), k and v (context, groups, dim) -> y (tokens, heads * dim)."""
    from refquant.models import attention

    q, k, v = (_wide(inputs[name]) for name in ("q", "k", "v"))
    return {"y": attention.attend(q, k, v, params["scale"]).astype(np.float32)}


def gated(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """gate, up -> y."""
    from refquant.models import norm

    return {"y": (norm.silu(_wide(inputs["gate"])) * _wide(inputs["up"])).astype(np.float32)}


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


@lru_cache(maxsize=8)
def _tokenizer(file: str):
    from refquant import gguf
    from refquant.text import Tokenizer

    with gguf.open(vectors.ROOT / file) as opened:
        return Tokenizer.from_gguf(opened)


def encode_text(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """text -> ids."""
    text = inputs["text"].tobytes().decode("utf-8")
    ids = _tokenizer(params["vocabulary"]).encode(text, params["add_special"], params["parse_special"])
    return {"ids": np.array(ids, np.int32)}


def decode_text(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """ids -> text, control tokens as they are spelled."""
    data = _tokenizer(params["vocabulary"]).decode_bytes(inputs["ids"].tolist())
    return {"text": np.frombuffer(data, np.uint8)}


@lru_cache(maxsize=1)
def _template_process():
    from refquant.text.template_process import TemplateProcess

    return TemplateProcess()


def render(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """messages -> text. The tokens are spelled <s> and </s>, as in the vocabulary spm."""
    from refquant.text import ChatTemplate

    source = (vectors.ROOT / params["template"]).read_text("utf-8")
    tokenizer = _tokenizer("vocabularies/spm.gguf")
    if [params["bos_token"], params["eos_token"]] != [tokenizer.token_text(i) for i in (tokenizer.bos, tokenizer.eos)]:
        raise Unsupported("template: BOS and EOS of another spelling")
    template = ChatTemplate(source, tokenizer, process=_template_process())
    text = template.render(params["messages"], params["add_generation_prompt"])
    return {"text": np.frombuffer(text.encode("utf-8"), np.uint8)}


@lru_cache(maxsize=1)
def _model(file: str):
    from refquant import gguf
    from refquant.models import Oracle

    return Oracle(gguf.open(vectors.ROOT / file), np.float64, np.float32)


def logits(member: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """ids -> logits after each of them, every `every`-th column."""
    scores = _model(params["model"]).logits(inputs["ids"])
    return {"logits": scores[:, :: params["every"]].astype(np.float32)}
