"""Fixtures that every test may use: the shared test data and the packages of other people, where they are present."""

import importlib
import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

VARIABLE = "REFQUANT_TEST_DATA"
PEERS = "REFQUANT_PEERS"


class SharedData:
    """Files of the folder that REFQUANT_TEST_DATA names; a file missing from a folder that was named is a failure."""

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, name: str) -> Path:
        path = self.root / name
        assert path.exists(), f"{VARIABLE} = {self.root}, expected it to hold {name}"
        return path


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job of a shell, and so would be what tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> SharedData:
    """`shared("models/x.gguf")` is a path; without REFQUANT_TEST_DATA the test is skipped and says so."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set: this test reads models and vectors that are not part of the project")
    assert Path(root).is_dir(), f"{VARIABLE} = {root}, expected a directory"
    return SharedData(Path(root))


@pytest.fixture(scope="session")
def peer() -> Callable[[str], ModuleType]:
    """`peer("onnx")` is the module; absent, the test is skipped, or fails where REFQUANT_PEERS=onnx,torch names it."""

    def find(name: str) -> ModuleType:
        promised = name.partition(".")[0] in os.environ.get(PEERS, "").split(",")
        if not promised and importlib.util.find_spec(name.partition(".")[0]) is None:
            pytest.skip(f"{name} is not installed, and {PEERS} does not name it")
        return importlib.import_module(name)

    return find
