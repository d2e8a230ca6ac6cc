"""The entry of config.json that says how the weights of a checkpoint are stored, for layouts that have one."""

from refquant.layouts.catalogue import Record
from refquant.layouts.linear import Linear


def configuration(name: str, record: Record) -> dict[str, object] | None:
    """`quantization_config` (MLX: `quantization`) for weights like `record` in the layout `name`; None if unknown.

    Only what a loader needs; `modules_to_not_convert`, `ignore` and the like depend on the model.
    """
    if not isinstance(record, Linear):
        return None
    size = {"bits": record.bits, "group_size": record.group_size}
    if name.startswith("gptq"):
        act_order = {"desc_act": record.g_idx is not None, "sym": record.symmetric}
        return {"quant_method": "gptq", **size, **act_order, "checkpoint_format": name, "pack_dtype": "int32"}
    if name.startswith("awq-"):
        return {"quant_method": "awq", **size, "zero_point": not record.symmetric, "version": name[4:]}
    if name == "mlx":
        return size
    if name in ("pack-quantized", "int-quantized"):
        channel = record.groups == 1
        weights = {
            "num_bits": record.bits,
            "type": "int",
            "symmetric": record.symmetric,
            "strategy": "channel" if channel else "group",
            "group_size": None if channel else record.group_size,
            "dynamic": False,
        }
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
        method = {"quant_method": "compressed-tensors", "format": name, "quantization_status": "compressed"}
        return {**method, "config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    return None
