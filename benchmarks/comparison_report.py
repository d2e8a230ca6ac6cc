"""The comparison with llama.cpp as Markdown and as JSON."""

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.comparison import Comparison, Spread
from benchmarks.first_token import FirstToken
from benchmarks.footprint import Footprint
from refquant.memory import human
from runtime.bench_rows import table
from runtime.cores import physical_cores
from runtime.processor import processor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and with what was measured."""

    date: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str
    load_average: float | None
    ours: str
    our_settings: str
    theirs: str
    their_settings: str

    @classmethod
    def here(cls, ours: dict[str, str], theirs: dict[str, str]) -> "Surroundings":
        """This machine now; `ours` and `theirs` are what the workers say of themselves."""
        cpu, flags = processor()
        pages = getattr(os, "sysconf_names", {})
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in pages else None
        return cls(
            date=datetime.now(UTC).isoformat(timespec="minutes"),
            cpu=cpu,
            flags=flags,
            cores=physical_cores(),
            memory_bytes=memory,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            ours=ours["version"],
            our_settings=ours["settings"],
            theirs=theirs["version"],
            their_settings=theirs["settings"],
        )


@dataclass(slots=True)
class Report:
    """What has been measured so far."""

    surroundings: Surroundings
    rounds: int
    comparisons: list[Comparison] = field(default_factory=list)
    reads: dict[str, dict[int, float]] = field(default_factory=dict)  # model -> threads -> bytes/s
    first_tokens: list[FirstToken] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)

    def as_json(self) -> str:
        """Everything, every single run included."""
        return json.dumps(
            {
                "surroundings": asdict(self.surroundings),
                "rounds": self.rounds,
                "comparisons": [comparison.as_dict() for comparison in self.comparisons],
                "read_bytes_per_second": self.reads,
                "first_tokens": [asdict(first) for first in self.first_tokens],
                "footprints": [asdict(footprint) | {"ratio": footprint.ratio} for footprint in self.footprints],
            },
            indent=2,
        )

    def as_markdown(self) -> str:
        """Tables for people."""
        return "\n".join(self._lines())

    def write(self, markdown: Path | None, json_file: Path | None) -> None:
        """Bring the files that were asked for up to date."""
        for path, text in ((markdown, self.as_markdown), (json_file, self.as_json)):
            if path is not None:
                path.write_text(text() + "\n", encoding="utf-8")

    def _lines(self) -> Iterator[str]:
        here = self.surroundings
        memory = "" if here.memory_bytes is None else f", {human(here.memory_bytes)}"
        load = "" if here.load_average is None else f" Load average at the start {here.load_average:.2f}."
        yield "# refquant against llama.cpp"
        yield ""
        yield f"{here.date}. {here.cpu}, {here.cores} cores{memory}, {here.system}.{load}  "
        yield f"CPU: {' '.join(here.flags)}  "
        yield f"refquant: {here.ours}; {here.our_settings}  "
        yield f"llama.cpp: {here.theirs}; {here.their_settings}"
        yield ""
        yield f"Medians of {self.rounds} runs of each engine in turn, with the least and the largest. `ratio`: the"
        yield "median of the ratios of neighbouring runs; above 1 refquant is faster. `of read`: bytes of weights and"
        yield "KV cache times tokens/s, of both engines, as a part of what a plain read of as many bytes reaches (the"
        yield "faster of one before and one after the tests). `paused CPU`: the most that an engine used of one core"
        yield "while the other one ran."
        yield ""
        header = ("model", "size", "threads", "test", "refquant t/s", "llama.cpp t/s", "ratio", "of read", "paused CPU")
        yield table(header, "<>>>>>>>>", [_cells(comparison) for comparison in self.comparisons])
        if self.reads:
            yield from ("", "## Plain read of as many bytes as the model has", "")
            rows = [[m, str(t), f"{rate / 1e9:.1f}"] for m, read in self.reads.items() for t, rate in read.items()]
            yield table(("model", "threads", "GB/s"), "<>>", rows)
        if self.first_tokens:
            yield from ("", "## From the start of the program to the first token, seconds", "")
            header = (
                "model",
                "threads",
                "refquant",
                "llama.cpp",
                "refquant inside",
                "llama.cpp inside",
                "refquant cold",
            )
            rows = [(Path(first.model).name, str(first.threads), *first.cells) for first in self.first_tokens]
            yield table(header, "<>>>>>>", rows)
        if self.footprints:
            yield from ("", "## Memory", "")
            yield "Peaks count pages of the mapped file. `ratio`: peak less that of one layer, to the bytes of weights"
            yield "and KV cache of the other layers."
            yield ""
            header = (
                "model",
                "engine",
                "tensors",
                "KV",
                "peak of load",
                "peak",
                "anonymous",
                "file",
                "one layer",
                "ratio",
            )
            rows = [(footprint.model, *footprint.cells) for footprint in self.footprints]
            yield table(header, "<<>>>>>>>>", rows)


def _cells(c: Comparison) -> tuple[str, ...]:
    return (
        c.model,
        human(c.model_bytes),
        str(c.threads),
        c.test,
        Spread.of(c.ours).text(1),
        Spread.of(c.theirs).text(1),
        c.ratio.text(2),
        "-" if c.of_read is None else "{:.0f} %, {:.0f} %".format(*c.of_read),
        "-" if c.idle_percent is None else f"{c.idle_percent:.0f} %",
    )
