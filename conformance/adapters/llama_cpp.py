"""llama.cpp through llama-cpp-python: tokenizers, the sampler's chain, logits of models.

Keys and values are kept in float32, without flash attention. A draw is not asked for: its numbers come from a generator
of its own. An id outside of the vocabulary ends the process, so that it is not asked about one.
"""

import ctypes
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from conformance import vectors
from conformance.adapters._package import installed
from conformance.protocol import Arrays, Unsupported

NAME = "llama.cpp"


def version() -> str:
    """Of llama-cpp-python, which brings the library."""
    return f"of llama-cpp-python {installed('llama-cpp-python')}"


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """tokenizer, sampler, model."""
    family, _, _ = algorithm.partition(".")
    if (family, op) not in OPERATIONS:
        raise Unsupported(f"{algorithm} {op}")
    version()
    return OPERATIONS[family, op](params, inputs)


@lru_cache(maxsize=2)
def _opened(file: str, vocab_only: bool):
    import llama_cpp

    settings = {} if vocab_only else {"n_ctx": 128, "logits_all": True, "type_k": 0, "type_v": 0, "flash_attn": False}
    path = str(vectors.ROOT / file)
    return llama_cpp.Llama(path, vocab_only=vocab_only, verbose=False, n_threads=1, **settings)


def _encode(params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    model = _opened(params["vocabulary"], True)
    ids = model.tokenize(inputs["text"].tobytes(), add_bos=params["add_special"], special=params["parse_special"])
    return {"ids": np.array(ids, np.int32)}


def _decode(params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    import llama_cpp

    vocab = llama_cpp.llama_model_get_vocab(_opened(params["vocabulary"], True)._model.model)
    ids, room = _known(vocab, inputs["ids"]), ctypes.create_string_buffer(1 << 16)
    given = (llama_cpp.llama_token * len(ids))(*ids)
    size = llama_cpp.llama_detokenize(vocab, given, len(ids), room, len(room), False, True)
    return {"text": np.frombuffer(room.raw[:size], np.uint8)}


def _known(vocab: object, ids: np.ndarray) -> list[int]:
    import llama_cpp

    if ids.size and not 0 <= ids.min() <= ids.max() < llama_cpp.llama_vocab_n_tokens(vocab):
        raise Unsupported("an id outside of the vocabulary: its callers must see to that")
    return ids.tolist()


def _candidates(params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    import llama_cpp as c

    logits = inputs["logits"]
    if not np.isfinite(logits).any() or np.isnan(logits).any() or (logits == np.inf).any():
        raise Unsupported("logits that are no numbers: its callers must see to that")
    tokens = (c.llama_token_data * logits.size)(*((i, float(v), 0.0) for i, v in enumerate(logits)))
    array = c.llama_token_data_array(tokens, logits.size, -1, False)
    penalties = c.llama_sampler_init_penalties(logits.size, inputs["history"].size, params["repeat_penalty"], 0.0, 0.0)
    for i in inputs["history"].tolist():
        c.llama_sampler_accept(penalties, i)
    chain = [
        penalties,
        c.llama_sampler_init_top_k(params["top_k"]),
        c.llama_sampler_init_top_p(params["top_p"], 1),
        c.llama_sampler_init_min_p(params["min_p"], 1),
        c.llama_sampler_init_temp(params["temperature"]),
        c.llama_sampler_init_dist(0),  # it fills the probabilities in
    ]
    for sampler in chain:
        c.llama_sampler_apply(sampler, ctypes.byref(array))
        c.llama_sampler_free(sampler)
    ids, probabilities = zip(*sorted((array.data[i].id, array.data[i].p) for i in range(array.size)))
    return {"ids": np.array(ids, np.int64), "probabilities": np.array(probabilities, np.float32)}


def _logits(params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    model = _opened(params["model"], False)
    if inputs["ids"].max() >= model.n_vocab():
        raise Unsupported("an id outside of the vocabulary: its callers must see to that")
    model.reset()
    model.eval(inputs["ids"].tolist())
    return {"logits": np.array(model.scores[: inputs["ids"].size, :: params["every"]], np.float32)}


OPERATIONS = {
    ("tokenizer", "encode"): _encode,
    ("tokenizer", "decode"): _decode,
    ("sampler", "candidates"): _candidates,
    ("model", "logits"): _logits,
}
