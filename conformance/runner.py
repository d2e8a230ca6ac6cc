"""Running tests against an adapter: pass, fail, error, skip."""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from conformance.compare import mismatch
from conformance.protocol import ERROR, FAIL, PASS, SKIP, Adapter, Arrays, Outcome, Refused, Unsupported
from conformance.vectors import Test


def run(tests: Iterable[Test], adapter: Adapter) -> Iterator[Outcome]:
    """One outcome for each test, in order. What an adapter raises is an outcome, not an exception of this function."""
    for test in tests:
        begin = time.perf_counter()
        bits: dict[str, object] = {}
        status, reason = _one(test, adapter, bits)
        yield Outcome(test.id, status, reason, test.flags, time.perf_counter() - begin, bits or None)


def _one(test: Test, adapter: Adapter, bits: dict[str, object]) -> tuple[str, str]:
    try:
        got = _call(test, adapter)
    except Unsupported as why:
        return SKIP, str(why)
    except Refused as why:
        refused = f"refused: {why}"
        return (PASS, refused) if test.expect is None else (FAIL, refused)
    except Exception as error:  # whatever a backend throws is a finding about the backend
        return ERROR, f"{type(error).__name__}: {error}"
    if test.expect is None:
        return FAIL, "accepted, expected a refusal"
    for name, expect in test.expect.items():
        if name not in got:
            return FAIL, f"{name}: absent, expected an output of this name"
        why = mismatch(got[name], expect)
        if why:
            bits.update(_different_bytes(name, np.asarray(got[name]), expect))
            return FAIL, f"{name}: {why}"
    if any("either" in expect for expect in test.expect.values()):
        return _stable(test, adapter, got)
    return PASS, ""


def _different_bytes(name: str, got: np.ndarray, expect: dict[str, object]) -> dict[str, object]:
    """What a report draws: up to 16 bytes from the element, or the 4 bytes, where the first difference is."""
    ref = expect.get("bits")
    if ref is None or (got.dtype, got.shape) != (ref.dtype, ref.shape):
        return {}
    a, b = (np.frombuffer(array.tobytes(), np.uint8) for array in (got, ref))
    at = int(np.argmax(a != b)) // max(4, ref.itemsize) * max(4, ref.itemsize)
    window = slice(at, at + 16)
    return {"output": name, "at": at, "got": a[window].tobytes().hex(), "expected": b[window].tobytes().hex()}


def _call(test: Test, adapter: Adapter) -> Arrays:
    return adapter.run(test.algorithm, test.op, test.params, test.inputs)


def _stable(test: Test, adapter: Adapter, first: Arrays) -> tuple[str, str]:
    """Where a choice is open, a second call must make the same one."""
    second = _call(test, adapter)
    for name in test.expect or ():
        if np.asarray(first[name]).tobytes() != np.asarray(second[name]).tobytes():
            return FAIL, f"{name}: a second call gave other bytes"
    return PASS, ""
