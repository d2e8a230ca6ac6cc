"""The process that renders templates: what the sandbox offers, what it forbids, and how it ends."""

import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError

import pytest

from refquant.errors import RangeError, UnsupportedError
from refquant.text import template_process
from refquant.text.template_process import WORKER, TemplateProcess

FOREVER = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
SKIPPING = "{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}"


@pytest.mark.parametrize(
    ("source", "ref"),
    [
        ("a\n{% if true %}\n  b\n{% endif %}\nc\n", "a\n  b\nc"),  # trim_blocks, no newline at the end
        ("  {% if true %}x{% endif %}", "x"),  # lstrip_blocks
        (
            "{% for i in range(9) %}" + SKIPPING + "{{ i }}{% endfor %}",
            "013",
        ),
        ("{{ x | tojson }}", '{"é<>&\'": [1, 2.5, null, true], "a": "\\n"}'),
        ("{{ x | tojson(indent=1) }}", '{\n "é<>&\'": [\n  1,\n  2.5,\n  null,\n  true\n ],\n "a": "\\n"\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':')) }}", '{"b":1,"a":2}'),
        ("{{ {'b': 1, 'a': '☃'} | tojson(ensure_ascii=true, sort_keys=true) }}", '{"a": "\\u2603", "b": 1}'),
        ("{{ '<b>' }}", "<b>"),
        ("{{ nothing }}|{{ nothing is defined }}", "|False"),
        ("{% generation %}a{% set b = 1 %}{% endgeneration %}", "a"),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ x['a'].join(['1', '2']) }}", "1\n2"),
        ("\u00e9\U0001f600", "é😀"),
        ("", ""),
    ],
)
def test_templates_find_what_they_expect(source, ref, process):
    assert process.render("t", source, {"x": {"é<>&'": [1, 2.5, None, True], "a": "\n"}}) == ref


def test_the_date_is_today(process):
    before = datetime.now().date()
    got = process.render("t", "{{ strftime_now('%Y-%m-%d') }}", {})
    assert before <= datetime.strptime(got, "%Y-%m-%d").date() <= datetime.now().date()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "line 1: Expected an expression"),
        ("\n\n{{ 'a }}", "line 3: "),
        ("{% nonsense %}", "unknown tag 'nonsense'"),
        ("{{ nothing.x }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ ''.__class__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "__init__"),
        ("{{ x.__init__ }}", "__init__"),
        ("{{ x | attr('__class__') }}", "__class__"),
        ("{{ '{0.__class__}'.format(x) }}", "__class__"),
        ("{{ __import__('os') }}", "'__import__' is undefined"),
        ("{{ x.append(1) }}", "append"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}", "the result is longer than 4194304 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep a recursion"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deep a recursion"),
        ("{{ '\\ud800' }}", "a lone surrogate"),
    ],
)
def test_what_templates_may_not_do_is_an_error_with_its_reason(source, message, process):
    with pytest.raises((UnsupportedError, RangeError), match=r"^here: ") as caught:
        process.render("here", source, {"x": [1]})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ('a' * 10**9) | length }}",
        "{{ 'a' | center(10**10) }}",
        "{{ '%09999999999d' % 1 }}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to its address space")
def test_memory_is_bounded(source, process):
    with pytest.raises(UnsupportedError, match="out of memory"):
        process.render("t", source, {})


def test_a_template_that_takes_too_long_is_killed_and_the_next_one_works():
    process = TemplateProcess(seconds=0.5)
    try:
        assert process.render("t", "a", {}) == "a"
        for source in (FOREVER, "{{ 9 ** (9 ** 9) }}"):
            start = time.perf_counter()
            with pytest.raises(UnsupportedError, match=r"t: still rendering after 0\.5 s"):
                process.render("t", source, {})
            assert time.perf_counter() - start < 10
            assert process.render("t", "b", {}) == "b"
    finally:
        process.close()


def test_raise_exception_says_what_the_template_says_and_cannot_move_the_cursor(process):
    with pytest.raises(RangeError, match=r"^t: no  \[2J role x{20}"):
        process.render("t", "{{ raise_exception('no \x1b[2J\nrole ' ~ 'x' * 9999) }}".replace("\n", " "), {})


def test_a_process_that_dies_is_replaced():
    process = TemplateProcess()
    try:
        assert process.render("t", "a", {}) == "a"
        process._process.kill()
        process._process.wait()
        assert process.render("t", "b", {}) == "b"
    finally:
        process.close()


def test_a_process_that_dies_while_it_renders_is_an_error(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text("print('{}', flush=True); input(); raise SystemExit(3)")
    monkeypatch.setattr(template_process, "WORKER", worker)
    process = TemplateProcess()
    try:
        with pytest.raises(UnsupportedError, match="t: the template process ended with status 3"):
            process.render("t", "a", {})
    finally:
        process.close()


def test_a_process_that_does_not_start_is_an_error(monkeypatch, tmp_path):
    process = TemplateProcess()
    process.close()
    monkeypatch.setattr(template_process, "WORKER", tmp_path / "missing.py")
    with pytest.raises(UnsupportedError, match="t: the template process ended with status 2"):
        process.render("t", "a", {})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UnsupportedError, match=r"text\.template_process: .* does not start"):
        process.render("t", "a", {})


def test_closing_leaves_no_process_and_rendering_again_starts_one():
    process = TemplateProcess()
    first = process._process
    process.close()
    process.close()
    assert first.returncode is not None
    assert process.render("t", "a", {}) == "a"
    second = process._process
    del process  # what its owner forgets ends with it
    assert second.returncode is not None


def test_the_worker_ends_with_its_input():
    worker = subprocess.run([sys.executable, "-P", WORKER], input=b"", capture_output=True, check=True, timeout=60)
    assert worker.stdout == b'{"ready": true}\n'
    assert worker.stderr == b""


def test_threads_take_turns(process):
    got: dict[int, str] = {}

    def work(i: int) -> None:
        got[i] = process.render("t", "{{ x * 3 }}", {"x": i})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {i: str(3 * i) for i in range(8)}


def test_large_text_goes_there_and_back(process):
    text = "\u2603\U0001f600" * 500_000
    assert process.render("t", "{{ x }}", {"x": text}) == text


if hasattr(signal, "pthread_kill"):

    def test_an_interrupt_while_rendering_leaves_no_late_answer():
        process = TemplateProcess(seconds=60.0)
        main = threading.main_thread().ident
        timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
        try:
            assert process.render("t", "a", {}) == "a"
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                process.render("t", FOREVER, {})
            assert process.render("t", "b", {}) == "b"
        finally:
            timer.join()
            process.close()

    def test_an_interrupt_from_the_terminal_does_not_reach_the_process():
        import os

        process = TemplateProcess()
        try:
            assert os.getpgid(process._process.pid) != os.getpgid(0)
        finally:
            process.close()


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (None, "jinja2 is not installed, expected `pip install 'refquant[chat]'`"),
        ("3.1.5", "jinja2 = 3.1.5, expected 3.1.6"),
    ],
)
def test_a_missing_or_leaky_package_is_named(installed, message, monkeypatch):
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        TemplateProcess()
