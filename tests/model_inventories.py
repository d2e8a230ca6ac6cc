"""The matrices of some published models, {name: shape}, and the facts that choose their types: what llama.cpp's own
snapshots of type selection (tests/snapshots/*.schema) are about."""

from collections.abc import Iterator

from refquant.gguf.file_types import Model

Matrices = dict[str, tuple[int, ...]]


def inventories() -> Iterator[tuple[str, Model, Matrices]]:
    """(name of the snapshot, facts, matrices)."""
    yield "qwen3-0.6b", Model("qwen3", 28, 2), _dense(28, 1024, 3072, 16, 8, 128, 151936)
    yield "qwen3-14b", Model("qwen3", 40, 5), _dense(40, 5120, 17408, 40, 8, 128, 151936)
    yield "gemma-3-4b-it", Model("gemma3", 34, 2), _dense(34, 2560, 10240, 8, 4, 256, 262144, tied=True)
    llama = Model("llama", 80, 8, is_70b=True)
    yield "meta-llama-3.1-70b-instruct", llama, _dense(80, 8192, 28672, 64, 8, 128, 128256)
    yield "gpt-oss-120b", Model("gpt-oss", 36, 8, 128), _gpt_oss()
    yield "deepseek-v3.1", Model("deepseek2", 61, 128, 256), _deepseek()
    yield "glm-4.6v", Model("glm4moe", 46, 12, 128), _glm()


def _ends(vocabulary: int, n: int, tied: bool = False) -> Matrices:
    ends = {"token_embd.weight": (vocabulary, n)}
    return ends if tied else ends | {"output.weight": (vocabulary, n)}


def _attention(i: int, n: int, q: int, kv: int) -> Matrices:
    shapes = {"q": (q, n), "k": (kv, n), "v": (kv, n), "output": (n, q)}
    return {f"blk.{i}.attn_{part}.weight": shape for part, shape in shapes.items()}


def _feed_forward(i: int, n: int, wide: int, kind: str = "", experts: tuple[int, ...] = ()) -> Matrices:
    shapes = {"gate": (wide, n), "up": (wide, n), "down": (n, wide)}
    return {f"blk.{i}.ffn_{part}{kind}.weight": (*experts, *shape) for part, shape in shapes.items()}


def _dense(layers: int, n: int, wide: int, heads: int, kv: int, head: int, vocabulary: int, tied=False) -> Matrices:
    found = _ends(vocabulary, n, tied)
    for i in range(layers):
        found |= _attention(i, n, heads * head, kv * head) | _feed_forward(i, n, wide)
    return found


def _gpt_oss() -> Matrices:
    found = _ends(201088, 2880)
    for i in range(36):
        found |= _attention(i, 2880, 4096, 512) | _feed_forward(i, 2880, 2880, "_exps", (128,))
    return found


def _deepseek() -> Matrices:
    found, n = _ends(129280, 7168), 7168
    for i in range(61):
        shapes = {
            "q_a": (1536, n), "q_b": (24576, 1536), "kv_a_mqa": (576, n), "k_b": (128, 512, 128),
            "v_b": (128, 128, 512), "output": (n, 16384),
        }  # fmt: skip
        found |= {f"blk.{i}.attn_{part}.weight": shape for part, shape in shapes.items()}
        if i < 3:
            found |= _feed_forward(i, n, 18432)
        else:
            found |= _feed_forward(i, n, 2048, "_shexp") | _feed_forward(i, n, 2048, "_exps", (256,))
    return found


def _glm() -> Matrices:
    found, n = _ends(151552, 4096), 4096
    for i in range(46):
        found |= _attention(i, n, 12288, 1024)
        if i < 1:
            found |= _feed_forward(i, n, 10944)
        else:
            found |= _feed_forward(i, n, 1408, "_shexp") | _feed_forward(i, n, 1408, "_exps", (128,))
    return found
