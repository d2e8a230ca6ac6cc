"""Cases of which the oracle says whether they are refused."""

from collections.abc import Mapping

import numpy as np

from conformance.adapters import refquant as oracle
from conformance.cases import Case
from conformance.protocol import Refused


def judged(
    algorithm: str, group: str, name: str, op: str, inputs: Mapping[str, np.ndarray], params: Mapping[str, object],
    flag: str, refused: str = "",
) -> tuple[Case, Mapping[str, np.ndarray]]:  # fmt: skip
    """The case and the outputs; where the oracle refuses, a case of refusal with the flag `refused`, and nothing."""
    params = {key: [int(n) for n in value] if isinstance(value, tuple) else value for key, value in params.items()}
    try:
        outputs = oracle.run(algorithm, op, params, inputs)
    except Refused:
        return Case(algorithm, group, name, op, inputs, params, (refused or flag,), "invalid"), {}
    arrays = {key: array for key, array in outputs.items() if key != "names"}
    return Case(algorithm, group, name, op, inputs, params, (flag,)), arrays
