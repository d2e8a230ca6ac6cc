import math

import numpy as np
import pytest

from refquant import groups
from refquant.errors import RangeError, ShapeError
from refquant.groups import Granularity

SPELLINGS = {
    "tensor": Granularity("tensor"),
    "channel": Granularity("channel"),
    "channel1": Granularity("channel", axis=1),
    "token": Granularity("token"),
    "g128": Granularity("group", 128),
    "b64": Granularity("block", 64),
    "b128x64": Granularity("tile", 64, rows=128),
}
SHAPES = {  # of scales for x (6, 4, 8)
    "tensor": (),
    "channel": (6, 1, 1),
    "channel1": (1, 4, 1),
    "channel2": (1, 1, 8),
    "token": (6, 4, 1),
    "g4": (6, 4, 2),
    "b64": (3,),
    "b2x4": (6, 2, 2),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spelling_and_record_are_inverse(spelling):
    assert groups.parse(spelling) == SPELLINGS[spelling]
    assert str(SPELLINGS[spelling]) == spelling


@pytest.mark.parametrize("word", ["", "g", "g0", "g-1", "g007", "b0x4", "b4x", "channel0", "Tensor", "g" + "9" * 5000])
def test_other_words_are_no_granularity(word):
    assert groups.parse(word) is None


@pytest.mark.parametrize("spelling", SHAPES)
def test_members_of_a_row_share_the_scale_that_the_table_gives_them(spelling):
    g, shape = groups.parse(spelling), (6, 4, 8)
    x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    got = groups.split("test", x, g)
    assert groups.scale_shape("test", shape, g) == SHAPES[spelling]
    assert got.shape == (math.prod(SHAPES[spelling]), x.size // math.prod(SHAPES[spelling]))
    label = np.empty(got.shape, np.int64)
    label[:] = np.arange(len(got))[:, None]
    label = groups.join(label, shape, g)
    scale = np.arange(len(got)).reshape(SHAPES[spelling])
    if spelling == "b64":
        scale = scale.repeat(64).reshape(shape)
    else:
        for axis in range(scale.ndim):
            scale = scale.repeat(shape[axis] // scale.shape[axis], axis=axis)
    np.testing.assert_array_equal(label, np.broadcast_to(scale, shape))


@pytest.mark.parametrize("spelling", SHAPES)
def test_join_undoes_split(spelling):
    g = groups.parse(spelling)
    x = np.random.default_rng(3).standard_normal((6, 4, 8), dtype=np.float32)
    got = groups.join(groups.split("test", x, g), x.shape, g)
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("spelling", ["tensor", "channel", "token", "g4", "b64"])
def test_split_of_a_contiguous_array_is_a_view(spelling):
    x = np.zeros((6, 4, 8), np.float32)
    assert np.shares_memory(groups.split("test", x, groups.parse(spelling)), x)


@pytest.mark.parametrize("shape", [(1, 10), (10, 1), (7, 5), (3, 1000), (1000, 3)])
def test_slabs_visit_every_value_once_in_order_and_stay_small(shape):
    visits = np.zeros(shape, int)
    order = []
    for part in groups.slabs(shape, values=16):
        visits[part] += 1
        assert visits[part].size <= 16
        order.append(np.arange(visits.size).reshape(shape)[part].ravel())
    assert (visits == 1).all()
    np.testing.assert_array_equal(np.concatenate(order), np.arange(visits.size))


@pytest.mark.parametrize(
    "shape, spelling, message",
    [
        ((3, 100), "g64", r"= 100, expected a positive multiple of 64 for g64: cut to 64 or pad with zeros to 128"),
        ((3, 96), "g128", r"pad with zeros to 128, or take a size that divides it such as 32"),
        ((3, 33), "b64", r"x\.size = 99, expected a positive multiple of 64 for b64"),
        ((100, 128), "b128x128", r"x\.shape\[-2\] = 100, expected a positive multiple of 128"),
        ((8,), "channel", r"expected at least 2 axes for channel; try tensor"),
        ((8, 8), "channel2", r"expected at least 3 axes for channel2"),
        ((8,), "b2x4", r"expected at least 2 axes for b2x4"),
        ((0, 0), "g4", r"x\.shape\[-1\] = 0"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_divide_are_refused_with_the_nearest_fix(shape, spelling, message):
    with pytest.raises(ShapeError, match=message):
        groups.scale_shape("test", shape, groups.parse(spelling))


def test_bad_records_and_bad_columns_are_refused():
    with pytest.raises(RangeError, match="kind = 'row', expected tensor, channel"):
        Granularity("row")
    with pytest.raises(RangeError, match="size = 1x0, expected positive"):
        Granularity("group")
    with pytest.raises(ShapeError, match=r"scale\.shape = \(3,\), expected one value or 4"):
        groups.column("test", "scale", np.ones(3), 4)
