"""Whole records of files as a witness: fields in, arrays out, and back; nothing of refquant takes part.

What cannot be held or read is a matter of refusals, which a witness says nothing about: there it gives up, or errs.
"""

import byte_checkpoints
import checkpoint_numbers as numbers
import floating_checkpoints as floating
import word_checkpoints

from conformance.protocol import Unsupported

WRITE = word_checkpoints.WRITE | byte_checkpoints.WRITE
READ = word_checkpoints.READ | byte_checkpoints.READ


def run(member, op, params, inputs):
    """write, read and weight of checkpoint.*"""
    try:
        return _named(op, _answer(member, op, params, inputs))
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError, OverflowError) as why:
        raise Unsupported(f"refusals: {why}") from why


def _answer(member, op, params, inputs):
    if member not in WRITE:
        return floating.run(member, op, params, inputs)
    if op == "write":
        return WRITE[member](numbers.given(inputs, params), **params.get("options", {}))
    weight = READ[member](inputs, **params)
    if op == "weight":
        return {"values": numbers.decoded(weight)}
    fields, middle = numbers.told(weight)
    return fields | {"symmetric": middle}


def _named(op, found):
    """With the names of what there is."""
    if op == "write":
        return found | {"names": floating.spelled(" ".join(sorted(found)))}
    fields = " ".join(name for name in found if name != "symmetric")
    return found | ({"fields": floating.spelled(fields)} if op == "read" else {})
