"""The command lines of first_token and busy_neighbour, with workers that need no model."""

from contextlib import nullcontext

import pytest

from benchmarks import busy_neighbour, first_token, worker


class Answers:
    """A worker that loads at once and needs a second for every run."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ask(self, do, **arguments):
        return {"seconds": 1.0, "token": 1}


def test_first_token_prints_a_row_for_each_model_and_engine(monkeypatch, capsys):
    monkeypatch.setattr(first_token, "ours", lambda cache=None: Answers())
    monkeypatch.setattr(worker, "llama_cpp", lambda python: (Answers(), {}))
    assert first_token.main(["a.gguf", "b.gguf", "-t", "1", "-r", "2", "--llama-python", "python"]) == 0
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("| a.gguf") and second.startswith("| b.gguf")
    assert first.count("1.00 (1.00-1.00)") == 2  # inside, of both engines


def test_busy_neighbour_prints_what_each_engine_keeps(monkeypatch, capsys):
    busy = []
    monkeypatch.setattr(worker, "ours", Answers)
    monkeypatch.setattr(worker, "llama_cpp", lambda python: (Answers(), {}))
    monkeypatch.setattr(busy_neighbour, "neighbours", lambda count: busy.append(count) or nullcontext())
    arguments = ["m.gguf", "-t", "1", "-b", "1", "-n", "4", "-p", "8", "-r", "1", "--llama-python", "python"]
    assert busy_neighbour.main(arguments) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        ("0", "pp8"),
        ("1", "pp8"),
        ("0", "tg4"),
        ("1", "tg4"),
    ]
    assert all(row[4].strip() == row[6].strip() == "100%" for row in rows)
    assert busy == [0, 1, 0, 1]


def test_neighbours_are_busy_and_end_with_the_block():
    with busy_neighbour.neighbours(0):
        pass
    assert busy_neighbour.fair(2, 1, 2) == 2 / 3
    assert busy_neighbour.fair(1, 1, 2) == 1.0


@pytest.mark.parametrize("arguments", [["-t", "0"], ["-b", "-1"], ["-n", "0"], ["-r", "0"], ["-p", "-1"]])
def test_wrong_options_of_busy_neighbour_are_refused(arguments):
    with pytest.raises(SystemExit) as end:
        busy_neighbour.main(["m.gguf", *arguments])
    assert end.value.code == 2
