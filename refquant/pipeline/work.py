"""A folder that is being made: files appear in it whole, and the folder appears under its name when it is complete.

    .out.partial/                    beside the result, named after it
        state.json                   what is being made; another job does not go on with it
        model-00001-of-00026.safetensors ...
    out/                             after `publish`: the same folder, renamed
    out.gguf                         after `publish_file`: one file of it; the rest is gone

A job that was killed leaves the folder; the same job finds the files that were finished and goes on behind them.
Another job with the same output removes them.
"""

import json
import os
import shutil
from pathlib import Path

from refquant.errors import QuantError

STATE = "state.json"


def place(output: Path) -> Path:
    """The working folder of `output`."""
    return output.with_name(f".{output.name}.partial")


def begin(output: Path, state: dict[str, object]) -> Path:
    """The working folder for `output`, with what the same job finished before. Raises QuantError if output exists."""
    if output.exists():
        raise QuantError(f"{output}: exists already, expected a new name")
    work = place(output)
    text = json.dumps(state, sort_keys=True)
    try:
        if work.exists():
            if (work / STATE).is_file() and (work / STATE).read_text() == text:
                _sweep(work)
                return work
            if any(work.iterdir()) and not (work / STATE).is_file():
                raise QuantError(f"{work}: holds files of something else, expected it to be free for unfinished work")
            shutil.rmtree(work)
        work.mkdir(parents=True)
        put(work / STATE, text)
    except OSError as error:
        raise QuantError(f"{work}: cannot be made: {error.strerror or error}") from error
    return work


def put(path: Path, text: str) -> None:
    """Write a file, all at once."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def publish(work: Path, output: Path) -> None:
    """Give the complete folder its name."""
    (work / STATE).unlink()
    _sweep(work)
    os.rename(work, output)


def publish_file(work: Path, name: str, output: Path) -> None:
    """Give one complete file of the folder its name, and remove the folder."""
    os.rename(work / name, output)
    shutil.rmtree(work)


def tidy(output: Path) -> None:
    """Remove the working folder of `output` where nothing was made in it."""
    work = place(output)
    if work.is_dir() and all(file.name == STATE or file.is_dir() for file in work.rglob("*")):
        shutil.rmtree(work)


def _sweep(work: Path) -> None:
    """Remove what a run that was killed had not written to the end."""
    for left in work.glob(".*.tmp"):
        left.unlink()
