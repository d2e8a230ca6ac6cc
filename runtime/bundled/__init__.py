"""The model that the chat uses when none is named: `README.md` here is its card, `make.py` makes it."""

from importlib import resources
from pathlib import Path


def path() -> Path:
    """The bundled model's file, as installed. FileNotFoundError where an installation left it out."""
    file = Path(str(resources.files(__name__) / "tiny-chat-Q8_0.gguf"))
    if not file.is_file():
        raise FileNotFoundError(f"bundled.path: {file} is missing, expected it beside this package")
    return file
