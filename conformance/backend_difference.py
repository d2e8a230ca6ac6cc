"""Two backends on the same inputs: in how many codes and scales they part, by test (`python -m conformance diff A B`).

Outputs are compared by refquant.difference, bit for bit. A test that one of the two does not know says nothing; what
one of them refuses and the other answers is a difference.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from conformance.protocol import Adapter, Refused, Unsupported
from conformance.vectors import Test
from refquant.difference import Difference, between


def differences(a: Adapter, b: Adapter, tests: Iterable[Test]) -> Iterator[tuple[str, Difference | str]]:
    """(full id, what differs) of each test that both know; a sentence where one side refused."""
    for test in tests:
        try:
            left, right = _answer(a, test), _answer(b, test)
        except Unsupported:
            continue
        if left is None or right is None:
            both = left is None and right is None
            yield test.id, between({}, {}) if both else f"refused by {(a if left is None else b).NAME} only"
        else:
            yield test.id, between(left, right)


def lines(found: Iterable[tuple[str, Difference | str]]) -> Iterator[str]:
    """A line for each test that differs, with the first place of each output, and how many were compared."""
    compared = differing = 0
    for name, difference in found:
        compared += 1
        if isinstance(difference, str):
            differing += 1
            yield f"{name}: {difference}"
        elif not difference.equal:
            differing += 1
            for part in difference.parts:
                if part.differing:
                    where = part.remark or f"the first at {list(part.first)}: {' and '.join(part.numbers)}"
                    yield f"{name}: {part.name}: {part.differing} of {part.size} differ, {where}"
    yield f"{differing} of {compared} tests differ"


def _answer(adapter: Adapter, test: Test) -> Mapping[str, np.ndarray] | None:
    try:
        got = adapter.run(test.algorithm, test.op, test.params, test.inputs)
    except Refused:
        return None
    return {name: np.asarray(array) for name, array in got.items()}
