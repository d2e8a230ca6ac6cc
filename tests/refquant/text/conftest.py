"""One template process for all tests that only want text rendered."""

from collections.abc import Iterator

import pytest

from refquant.text.template_process import TemplateProcess


@pytest.fixture(scope="session")
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess(seconds=30.0)
    yield process
    process.close()
