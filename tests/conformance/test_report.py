"""The report: one page, with every failure and its bits."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from conformance import report, runner, vectors
from conformance.__main__ import main
from conformance.adapters import refquant as oracle
from conformance.known import Known
from conformance.results import Results
from refquant.errors import QuantError


class OneBitOff:
    """The oracle, but for the lowest bit of a code."""

    NAME, version = "<one bit off>", staticmethod(lambda: "1")

    @staticmethod
    def run(*arguments):
        data = oracle.run(*arguments)["bytes"].copy()
        data[0, 35] ^= 1
        return {"bytes": data}


@pytest.fixture
def record():
    outcomes = tuple(runner.run(vectors.select("gguf.Q8_0:encode/t*"), OneBitOff))
    outcomes += tuple(runner.run(vectors.select("gguf.Q8_0:encode/random"), OneBitOff))
    explained = (Known("gguf.Q8_0:encode/random", "a bit", "rule: none"),)
    return json.loads(json.dumps(Results("off", "<one bit off>", "1", outcomes, explained).to_json()))


class Tags(HTMLParser):
    """Fails on a page whose tags do not nest; collects what would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_holds_together_and_needs_nothing_else(record):
    tags = Tags()
    tags.feed(report.page([record]))
    assert (tags.open, tags.fetched) == ([], [])


def test_failures_are_shown_with_reason_effect_replay_and_bits(record):
    page = report.page([record])
    assert "&lt;one bit off&gt;" in page
    assert "<one bit off>" not in page
    assert "Known: a bit" in page
    assert '<td class="bad" title="1 failed as known, 1 failed">1 + 1</td>' in page
    assert "Ties go another way" in page
    assert "--backend off --only &#x27;gguf.Q8_0:encode/tie&#x27;" in page
    (bits,) = [o["bits"] for o in record["outcomes"] if o["test"].endswith("tie")]
    assert bits["at"] == 32
    assert np.bitwise_xor(*(np.frombuffer(bytes.fromhex(bits[k]), np.uint8) for k in ("got", "expected"))).sum() == 1
    assert "               ^" in report.draw(bits)


def test_every_family_has_a_title():
    assert set(report.FAMILIES) == {path.parent.name for path in vectors.files()}


def test_the_command_writes_a_page_and_refuses_what_is_no_record(record, tmp_path, capsys):
    source, page = tmp_path / "off.json", tmp_path / "page.html"
    source.write_text(json.dumps(record), "utf-8")
    assert main(["report", str(source), "-o", str(page)]) == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")
    capsys.readouterr()
    source.write_text("{}", "utf-8")
    assert main(["report", str(source), "-o", str(page)]) == 1
    assert "expected a record" in capsys.readouterr().err
    with pytest.raises(QuantError, match="absent"):
        report.read([tmp_path / "absent.json"])
