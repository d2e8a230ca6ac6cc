import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeded

from refquant import affine, gguf, groups, nf4, schemes
from refquant.errors import SchemeError, ShapeError
from refquant.schemes import SCHEMES, parse

WORDS = ["sym", "asym", "restricted", "full", "signedmax", "zfloat", "zbefore", "f16", "bf16", "wide", "half_away"]


@pytest.mark.parametrize("spelling", SCHEMES)
def test_listed_names_are_canonical_and_round_trip(spelling):
    scheme = parse(spelling)
    assert scheme == SCHEMES[spelling]
    assert str(scheme) == spelling
    assert parse(str(scheme)) == scheme
    assert hash(scheme) == hash(SCHEMES[spelling])


def test_the_registry_holds_every_ggml_type_with_an_encoder_and_no_other():
    encodable = {name for name, f in gguf.FORMATS.items() if f.encode is not None}
    assert encodable == SCHEMES.keys() & gguf.FORMATS.keys()
    assert all(s.can_encode for s in SCHEMES.values())
    assert not parse("IQ1_S").can_encode


@seeded
@given(
    head=st.sampled_from(["int", "uint"]),
    bits=st.integers(1, 8),
    granularity=st.sampled_from(["", "tensor", "channel", "channel1", "token", "g32", "b64", "b8x128"]),
    words=st.lists(st.sampled_from(WORDS), max_size=4),
)
def test_every_combination_that_means_something_round_trips(head, bits, granularity, words):
    spelling = "-".join(filter(None, [f"{head}{bits}", *words, granularity]))
    try:
        scheme = parse(spelling)
    except SchemeError:
        return
    assert parse(str(scheme)) == scheme
    assert len(str(scheme)) <= len(spelling)


def test_words_mean_fields_of_the_rule():
    scheme = parse("uint4-asym-zfloat-zbefore-bf16-wide-half_away-g64")
    assert scheme.granularity == groups.group(64)
    assert scheme.rule == affine.Rule(
        4, False, False, "half", "float", "before", scale_dtype="bfloat16", codes_from="wide", rounding="half_away"
    )
    assert parse("int4-g32-signedmax").rule == affine.Rule(4, range_mode="signedmax")


@pytest.mark.parametrize(
    "spelling, canonical",
    [
        ("int8-tensor-sym-half-f32", "int8"),
        ("uint4-asym-g64", "uint4-g64"),
        ("int4-asym-g128", "int4-g128-asym"),
        ("nf4-b64", "nf4"),
        ("uint4-sym-b64", "uint4-b64-sym"),
    ],
)
def test_words_come_in_any_order_and_may_say_what_is_meant_anyway(spelling, canonical):
    assert str(parse(spelling)) == canonical
    assert parse(spelling) == parse(canonical)


def test_a_dialect_is_other_values_of_the_same_rule():
    assert parse("nf4").rule == nf4.RULE
    assert parse("nf4@bitsandbytes-cuda").rule.reciprocal
    assert str(parse("nf4-g64@bitsandbytes-cuda")) == "nf4-g64@bitsandbytes-cuda"
    assert parse("nf4@bitsandbytes-cuda") != parse("nf4")


@pytest.mark.parametrize(
    "spelling, bits",
    [
        ("int8", 8),
        ("int4-g128", 4 + 32 / 128),
        ("int4-g128-f16", 4 + 16 / 128),
        ("int4-g128-asym", 4 + 36 / 128),
        ("uint4-g64-zfloat-zbefore", 4 + 64 / 64),
        ("int1-g128", 1 + 32 / 128),
        ("int4-b128x128", 4 + 32 / 16384),
        ("nf4", 4.5),
        ("Q4_0", 4.5),
        ("Q6_K", 6.5625),
        ("F16", 16),
    ],
)
def test_bits_per_weight_count_codes_scales_and_zero_points(spelling, bits):
    assert parse(spelling).bits_per_weight == bits


@pytest.mark.parametrize(
    "spelling, shape, nbytes",
    [
        ("int8", (3, 5), 15 + 4),
        ("int3", (3, 5), 6 + 4),
        ("uint4-channel", (3, 5), 8 + 3 * 4 + 2),
        ("int4-g128", (2, 256), 256 + 4 * 4),
        ("nf4", (2, 32), 32 + 4),
        ("Q4_0", (3, 64), 3 * 2 * 18),
    ],
)
def test_nbytes_of_a_shape(spelling, shape, nbytes):
    assert parse(spelling).nbytes(shape) == nbytes


def test_nbytes_refuses_a_shape_that_does_not_divide():
    with pytest.raises(ShapeError, match="60, expected a positive multiple of 64 for b64"):
        parse("nf4").nbytes((60,))


def test_options_are_words():
    assert str(parse("int4-g64").with_options(range_mode="full", scale_dtype="float16")) == "int4-g64-full-f16"
    for mode in affine.RANGES:
        assert parse("int4").with_options(range_mode=mode).rule.range_mode == mode


def test_schemes_can_be_sent_to_another_process():
    for scheme in SCHEMES.values():
        assert str(pickle.loads(pickle.dumps(scheme))) == str(scheme)


@pytest.mark.parametrize(
    "spelling, message",
    [
        ("int9", r"scheme = 'int9', expected a known scheme; the nearest are int8"),
        ("int4g128", "nearest are int4-g128"),
        ("q4_0", "nearest are Q4_0"),
        ("nf3", "nearest are nf4"),
        ("INT4", "nearest are int4"),
        ("int4-g128-asymm", "word 'asymm' of 'int4-g128-asymm', expected a known word; the nearest are asym"),
        ("int4-g0", "word 'g0' of 'int4-g0', expected a known word: tensor, channel"),
        ("int4-", "word '' of 'int4-'"),
        ("int4-g64-g32", "granularity is said twice"),
        ("int4-sym-asym", "symmetric is said twice"),
        ("int1-full", "expected a symmetric rule of 2 bits or more"),
        ("int4-zfloat", "expected an asymmetric rule"),
        ("nf4@bitsandbytes", "expected a known dialect; the nearest are bitsandbytes-cpu, bitsandbytes-cuda"),
        ("nf4@", "expected a known dialect: bitsandbytes-cuda"),
        ("int8@onx", "expected a known dialect; the nearest are onnx"),
        ("af4@onnx", "expected no dialect: it has none"),
        ("Q4_0-g32", "expected no word: it has none"),
        ("nf4-asym", "word 'asym'"),
        ("", "expected a known scheme: int8"),
        ("x" * 100000, r"xxx\.\.\.'"),
        ("int4-g" + "9" * 100000, r"999\.\.\.'"),
        (None, "scheme = NoneType, expected a str such as"),
        (4, "scheme = int"),
    ],
)
def test_unknown_spellings_name_the_nearest_known_ones(spelling, message):
    with pytest.raises(SchemeError, match=message) as caught:
        parse(spelling)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "spelling, options, message",
    [
        (
            "int4",
            {"range": "full"},
            "option range of int4 = 'full', expected a known option; the nearest are range_mode",
        ),
        ("int4", {"range_mode": "wide"}, r"expected one of \['half', 'restricted', 'full', 'signedmax', 'covering'\]"),
        ("Q4_0", {"range_mode": "full"}, "expected no option: it has none"),
        ("int4", {"bits": 5}, "option bits"),
    ],
)
def test_unknown_options_are_refused(spelling, options, message):
    with pytest.raises(SchemeError, match=message):
        parse(spelling).with_options(**options)


def test_no_two_words_of_one_head_collide_with_a_granularity():
    words = schemes.HEADS["int4"].words
    assert not any(groups.parse(word) for word in words)
    for (a, one), (b, other) in itertools.combinations(words.items(), 2):
        assert one != other, (a, b)
