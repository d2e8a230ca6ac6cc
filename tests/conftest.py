"""Fixtures that every test may use: where the shared test data lies, if it lies anywhere."""

import os
from pathlib import Path

import pytest

VARIABLE = "REFQUANT_TEST_DATA"


class SharedData:
    """Files of the folder that REFQUANT_TEST_DATA names; a file missing from a folder that was named is a failure."""

    def __init__(self, root: Path):
        self.root = root

    def __call__(self, name: str) -> Path:
        path = self.root / name
        assert path.exists(), f"{VARIABLE} = {self.root}, expected it to hold {name}"
        return path


@pytest.fixture(scope="session")
def shared() -> SharedData:
    """`shared("models/x.gguf")` is a path; without REFQUANT_TEST_DATA the test is skipped and says so."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set: this test reads models and vectors that are not part of the project")
    assert Path(root).is_dir(), f"{VARIABLE} = {root}, expected a directory"
    return SharedData(Path(root))
