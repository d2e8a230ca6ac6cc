"""Files that no packer here writes, and that readers meet."""

import numpy as np

from conformance.cases import float_weights, linear_weights
from refquant.layouts import pack


def made_by_hand(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Label -> arrays of the layout `name`."""
    if name == "gptq":  # 30 outputs in the words of 32, and a row of words too many
        arrays = dict(pack(linear_weights.weight(3), name))
        fewer = {part: arrays[part][:, :30] for part in ("qweight", "scales")}
        rows = np.concatenate([arrays["qweight"], arrays["qweight"][:1]])
        bare = {part: array for part, array in arrays.items() if part != "g_idx"}
        ten = {part: arrays[part][:, :10] for part in ("qweight", "scales")}
        eight = dict(pack(linear_weights.weight(8), name))
        wide = {part: np.tile(eight[part], (1, 4))[:, :30] for part in ("qweight", "scales")}
        return {
            "30-outputs-of-8-bits": eight | wide | {"qzeros": np.tile(eight["qzeros"], (1, 4))},
            "10-outputs-no-order": bare | ten | {"qzeros": arrays["qzeros"][:, :1]},
            "30-outputs": arrays | fewer,
            "half-a-code": bare | {"qweight": rows},
            "10-outputs": arrays | ten | {"qzeros": arrays["qzeros"][:, :1]},
            "no-order": bare,
        }
    if name in ("gguf-MXFP4", "gguf-NVFP4"):  # scale bytes that ggml and OCP read alike, and others
        label = "e2m1-e8m0-32" if name == "gguf-MXFP4" else "e2m1-e4m3fn-16-0"
        arrays = pack(float_weights.weights()[label], name)
        found = {}
        for byte in (0, 1, 125, 126, 127, 128, 254, 255):
            weight = arrays["weight"].copy()
            weight[1, 0] = byte
            found[f"scale-byte-{byte}"] = dict(arrays) | {"weight": weight}
        return found
    if name == "hqq":  # groups that begin in one row and end in the next
        arrays = dict(pack(linear_weights.weight(4, "middle", size=32), name))
        packed, half = arrays["W_q"].reshape(2, 64), {part: arrays[part][:4] for part in ("scale", "zero")}
        return {"across-rows": arrays | half | {"W_q": packed, "group_size": np.array(64, np.int32)}}
    return {}
