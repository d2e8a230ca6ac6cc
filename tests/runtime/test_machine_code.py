"""Object files: read back whole or not at all, linked each by itself, and honest about an exception."""

import pytest

from runtime import jit, machine_code
from runtime.machine_code import MachineCode


def factory(step: int):
    @jit.inlined
    def inner(x):
        return x + step

    @jit.entry(2)
    def outer(x, y):
        return inner(x) // y

    return outer


def code_of(function: jit.Compiled) -> tuple[str, bytes]:
    library, name = function.compile()
    return name, library.serialize_using_object_code()[2][0]


def test_a_function_is_called_with_whole_numbers_and_has_an_address():
    code = MachineCode(*code_of(factory(5)), 2, returns=True)
    assert code.address > 0
    assert code(7, 3) == 4
    assert code(-7, 2) == -1
    with pytest.raises(TypeError):
        code(1)


def test_functions_of_the_same_name_do_not_mix():
    first, second = (MachineCode(*code_of(factory(step)), 2, returns=True) for step in (5, 100))
    assert (first(1, 1), second(1, 1)) == (6, 101)


def test_an_exception_is_reported_and_does_not_end_the_process(monkeypatch):
    seen, code = [], MachineCode(*code_of(factory(5)), 2, returns=True)
    monkeypatch.setattr("sys.unraisablehook", lambda report: seen.append(report.exc_type))
    code(1, 0)
    assert seen == [ZeroDivisionError]
    assert code(1, 2) == 3


def test_a_file_comes_back_whole_or_not_at_all(tmp_path):
    path, content = tmp_path / "folder" / "file", ("name of a function", bytes(range(256)) * 5)
    assert machine_code.read(path) is None
    machine_code.write(path, *content)
    assert machine_code.read(path) == content
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    data = path.read_bytes()
    for damaged in (b"", data[:-1], data[1:], data + b"\0", data[:40] + b"?" + data[41:]):
        path.write_bytes(damaged)
        assert machine_code.read(path) is None
    machine_code.write(path, *content)
    assert machine_code.read(path) == content
