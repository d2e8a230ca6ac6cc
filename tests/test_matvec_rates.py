"""The benchmark of single products, on matrices that fit into a cache: what it measures is what the kernels compute."""

import json

import numpy as np
import pytest

from benchmarks import matvec
from refquant.gguf import FORMATS
from runtime.kernels import PRODUCTS
from runtime.kernels.ahead import AHEAD, LINE, lines_of
from runtime.kernels.pack import GROUP
from runtime.workers import Crew


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "MXFP4", "BF16"])
def test_a_packed_matrix_has_the_bytes_of_whole_groups_and_they_are_all_alike(name):
    packed = matvec.packed_matrix(name, 1)
    form = FORMATS[name]
    assert packed.shape[1] == GROUP * matvec.WIDTH // form.values * form.block_bytes
    assert 0.7 * 2**20 < packed.nbytes <= 2**20
    assert (packed == packed[0]).all()


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "BF16"])
def test_the_measured_product_is_computed_for_every_row(name):
    packed = matvec.packed_matrix(name, 1)
    program, y = matvec.product_of_one_token(name, packed, 2)
    crew = Crew(2)
    try:
        crew.run(program.table(), 0, 1, 1, 0)
    finally:
        crew.close()
    y = y.reshape(len(packed), GROUP)
    assert len(np.unique(y[0])) == GROUP  # random rows: no two of a group are alike
    np.testing.assert_array_equal(y, np.broadcast_to(y[0], y.shape))


def test_rates_are_printed_as_a_table_and_written_as_json(tmp_path, capsys):
    file = tmp_path / "rates.json"
    options = ["--types", "Q8_0,Q6_K", "-t", "1,2", "-r", "2", "--megabytes", "1", "--json", str(file)]
    assert matvec.main(options) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| Q")]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| Q8_0", "1", "8.50"],
        ["| Q8_0", "2", "8.50"],
        ["| Q6_K", "1", "6.56"],
        ["| Q6_K", "2", "6.56"],
    ]
    rates = json.loads(file.read_text())["rates"]
    assert [(rate["type"], rate["threads"]) for rate in rates] == [("Q8_0", 1), ("Q8_0", 2), ("Q6_K", 1), ("Q6_K", 2)]
    for rate in rates:
        speed = rate["gigabytes_per_second"]
        assert 0 < speed["least"] <= speed["median"] <= speed["largest"]
        assert rate["gigaweights_per_second"] == pytest.approx(8 * speed["median"] / rate["bits_per_weight"])


@pytest.mark.parametrize("options", [["--types", "Q9_0"], ["-t", "0"], ["-r", "0"], ["--megabytes", "0"]])
def test_options_that_mean_nothing_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stop:
        matvec.main(options)
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, steps", [("Q2_K", 16), ("Q3_K", 16), ("Q6_K", 16), ("TQ2_0", 16), ("Q4_K", 32), ("Q5_K", 32)]
)
def test_every_line_of_a_super_block_is_asked_for_and_few_twice(name, steps):
    block = GROUP * FORMATS[name].block_bytes
    asked = lines_of(block, steps) * steps * LINE
    assert block <= asked < block + steps * LINE
    assert AHEAD % LINE == 0
    assert name in PRODUCTS
