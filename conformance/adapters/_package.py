"""Whether a Python package is there and which version, and its errors as refusals."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from conformance.protocol import Refused, Unsupported


def installed(name: str) -> str:
    """The version of the distribution `name`. Raises Unsupported where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        raise Unsupported(f"{name} is not installed") from None


@contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """What a backend raises of these kinds on its input is a refusal; by default what libraries raise for values."""
    kinds = errors or (ValueError, RuntimeError, AssertionError, IndexError)
    try:
        yield
    except kinds as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:200]}") from error
