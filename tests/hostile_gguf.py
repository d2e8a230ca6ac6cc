"""GGUF files that are wrong in one place, and what a refusal must say.

`CASES` begins with those of llama.cpp's tests/test-gguf.cpp. Its accepted "TENSORS" files have no data, which a reader
of metadata may accept; here the data follow.
"""

import struct
from random import Random

import gguf_bytes as raw
from gguf_bytes import ARR, BOOL, F32, I32, STR, U8, U16, U32, U64, Fields

from refquant.gguf.header import MAX_KEYS
from refquant.gguf.tensors import MAX_TENSORS

TYPE_F32, TYPE_Q4_0, TYPE_I8, TYPE_I64, TYPE_COUNT = 0, 2, 24, 27, 43
KV = [raw.pair("my_key_0", U32, 7), raw.pair("my_key_1", STR, "x"), raw.array("my_key_2", F32, [1, 2])]
ALIGN = "general.alignment"


def tensors(alignment: int = 32, **first: object) -> list[Fields]:
    """A table of three tensors with 32, 5 and 18 bytes; `first` replaces fields of the first."""
    fields = {"name": "my_tensor_0", "dims": [8], "type": TYPE_F32, "offset": 0} | first
    pad = lambda n: -(-n // alignment) * alignment
    return [
        raw.tensor(**fields),
        raw.tensor("my_tensor_1", [5], TYPE_I8, pad(32)),
        raw.tensor("my_tensor_2", [32], TYPE_Q4_0, pad(32) + pad(5)),
    ]


# name: (file, None where it is accepted or words of the message)
CASES = {
    "HEADER_BAD_MAGIC": (raw.gguf(KV, magic=b"FUGG"), "magic = .*FUGG.* at byte 0, .*bytes swapped"),
    "HEADER_BAD_VERSION_0": (raw.gguf(KV, version=0), "version = 0 at byte 4"),
    "HEADER_BAD_VERSION_1": (raw.gguf(KV, version=1), "version = 1 at byte 4, .*converted again"),
    "HEADER_BAD_VERSION_FUTURE": (raw.gguf(KV, version=4), "version = 4 at byte 4, .*newer than this reader"),
    "HEADER_BAD_N_TENSORS": (raw.gguf(KV, n_tensors=-1), "n_tensors = -1 at byte 8"),
    "HEADER_BAD_N_KV": (raw.gguf(KV, n_kv=-1), "n_kv = -1 at byte 16"),
    "HEADER_EMPTY": (raw.gguf(), None),
    "KV_BAD_KEY_SIZE": (
        raw.gguf([[*raw.string("my_key_0", -1), bytes(8)]]),
        "metadata 0 key = 18446744073709551615 bytes long at byte 24",
    ),
    "KV_EMPTY_KEY": (raw.gguf([raw.pair("", U32, 1)]), "metadata 0 key = '' at byte 24"),
    "KV_BAD_TYPE": (raw.gguf([raw.pair("my_key_0", 13, b"\0")]), "metadata 'my_key_0' type = 13 at byte 40"),
    "KV_BAD_TYPE_OF_ARRAY": (
        raw.gguf([raw.pair("my_key_0", ARR, raw.unsigned(13, 4) + bytes(9))]),
        "metadata 'my_key_0' element type = 13 at byte 44",
    ),
    "KV_DUPLICATE_KEY": (
        raw.gguf([KV[0], KV[1], KV[0]]),
        r"metadata 2 key = 'my_key_0' at byte \d+, .*not used before",
    ),
    "KV_BAD_ALIGN": (
        raw.gguf([*KV, raw.pair(ALIGN, U32, 13)]),
        r"metadata 'general.alignment' value = 13 at byte \d+, .*power of two",
    ),
    "KV_WRONG_TYPE_ALIGN": (
        raw.gguf([raw.pair(ALIGN, I32, 32)]),
        "metadata 'general.alignment' type = i32 at byte 49, expected u32",
    ),
    "KV_SUCCESS": (raw.gguf(KV), None),
    "TENSORS_BAD_NAME_SIZE": (
        raw.gguf([], tensors(name="n" * 64), bytes(82)),
        "tensor 0 name = 64 bytes long at byte 24, expected at most 63",
    ),
    "TENSORS_BAD_N_DIMS": (
        raw.gguf([], tensors(dims=[8, 1, 1, 1, 1]), bytes(82)),
        "'my_tensor_0' n_dims = 5 at byte 43, expected at most 4",
    ),
    "TENSORS_BAD_SHAPE": (raw.gguf([], tensors(dims=[8, -1]), bytes(82)), r"'my_tensor_0' dims\[1\] = -1 at byte 55"),
    "TENSORS_NE_TOO_BIG": (
        raw.gguf([], tensors(dims=[4 * (2**31 - 1)] * 2), bytes(82)),
        "'my_tensor_0' dims = 8589934588 x 8589934588 at byte 47",
    ),
    "TENSORS_NBYTES_TOO_BIG": (
        raw.gguf([], tensors(dims=[1533916892] * 2, type=TYPE_I64), bytes(82)),
        "'my_tensor_0' dims = .* at byte 47",
    ),
    "TENSORS_NBYTES_PAD_WRAP": (
        raw.gguf([], tensors(dims=[4, 2**30 - 1, 2**30 + 1]), bytes(82)),
        "'my_tensor_0' dims = .* at byte 47",
    ),
    "TENSORS_BAD_TYPE": (raw.gguf([], tensors(type=TYPE_COUNT), bytes(82)), "'my_tensor_0' type = 43 at byte 55"),
    "TENSORS_BAD_OFFSET": (
        raw.gguf([], tensors(offset=-1), bytes(82)),
        "'my_tensor_0' offset = 18446744073709551615 at byte 59, expected 0",
    ),
    "TENSORS_DUPLICATE_NAME": (
        raw.gguf([], tensors(name="my_tensor_2"), bytes(82)),
        r"tensor 2 name = 'my_tensor_2' at byte \d+, .*not used before",
    ),
    "TENSORS_BAD_ALIGN": (raw.gguf([raw.pair(ALIGN, U32, 13)], tensors(13), bytes(82)), "value = 13"),
    "TENSORS_INCONSISTENT_ALIGN": (
        raw.gguf([], tensors(1), bytes(82)),
        r"'my_tensor_2' offset = 37 at byte \d+, expected 64",
    ),
    "TENSORS_SUCCESS": (raw.gguf([], tensors(), bytes(82)), None),
    "TENSORS_ZERO_DIM": (raw.gguf([], [raw.tensor("my_tensor_0", [8, 0], TYPE_F32, 0)]), None),
    "TENSORS_CUSTOM_ALIGN": (raw.gguf([raw.pair(ALIGN, U32, 1)], tensors(1), bytes(55), alignment=1), None),
    "DATA_NOT_ENOUGH_DATA": (
        raw.gguf(KV, tensors(), bytes(81)),
        r"tensor 'my_tensor_2' end of data = \d+ at byte \d+, expected no more than the",
    ),
    "DATA_BAD_ALIGN": (raw.gguf([*KV, raw.pair(ALIGN, U32, 13)], tensors(13), bytes(82), alignment=13), "value = 13"),
    "DATA_INCONSISTENT_ALIGN": (raw.gguf(KV, tensors(1), bytes(82), alignment=1), "offset = 37"),
    "DATA_MEM_SIZE_OVERFLOW": (
        raw.gguf([], [raw.tensor(n, [2**63 - 64], TYPE_I8, o) for n, o in (("a", 0), ("b", 2**63 - 64))], bytes(32)),
        "tensor 'a' end of data = 9223372036854775840",
    ),
    "DATA_SUCCESS": (raw.gguf(KV, tensors(), bytes(range(82))), None),
    "DATA_CUSTOM_ALIGN": (raw.gguf([*KV, raw.pair(ALIGN, U32, 1)], tensors(1), bytes(range(55)), alignment=1), None),
    # not in test-gguf.cpp
    "ARRAY_OF_ARRAYS": (
        raw.gguf([raw.pair("k", ARR, raw.unsigned(ARR, 4) + bytes(8))]),
        "element type = arr at byte 37, .*do not nest",
    ),
    "ARRAY_LENGTH_2_63": (raw.gguf([raw.array("k", U8, [1], 2**63)]), "array length = 9223372036854775808 at byte 41"),
    "ARRAY_LONGER_THAN_THE_FILE": (
        raw.gguf([raw.array("k", U64, [1], 2)]),
        "array of 2 = 8 bytes before the end of the file at byte 49, expected 16 bytes",
    ),
    "ARRAY_OF_TOO_MANY_STRINGS": (
        raw.gguf([raw.array("k", STR, ["a", "b"], 1 << 29)]),
        "array of 536870912 = 18 bytes before the end of the file",
    ),
    "STRING_LONGER_THAN_THE_FILE": (
        raw.gguf([[*raw.string("k"), raw.unsigned(STR, 4), *raw.string("ab", 3)]]),
        "metadata 'k' value = 2 bytes before the end of the file at byte 45, expected 3 bytes",
    ),
    "STRING_OF_2_64": (
        raw.gguf([[*raw.string("k"), raw.unsigned(STR, 4), *raw.string("ab", -1)]]),
        "bytes long at byte 37",
    ),
    "STRING_IN_ARRAY_LONGER_THAN_THE_FILE": (
        raw.gguf([[*raw.array("k", STR, ["ab"], 2), *raw.string("cde", 4)]]),
        "metadata 'k' string 1 of 2 = 3 bytes before the end of the file at byte 67, expected 4",
    ),
    "STRING_IN_ARRAY_OF_2_64": (
        raw.gguf([[*raw.array("k", STR, ["ab"], 2), *raw.string("cde", -1)]]),
        "string 1 of 2 = 18446744073709551615 bytes long",
    ),
    "KEY_NOT_UTF8": (raw.gguf([raw.pair(b"ab\xff", U8, 1)]), r"metadata 0 key = b'ab\\xff' at byte 34, expected UTF-8"),
    "KEY_WITH_ZERO": (raw.gguf([raw.pair("a\0b", U8, 1)]), r"metadata 0 key = 'a\\x00b' at byte 24"),
    "KEY_OF_65536_BYTES": (raw.gguf([raw.pair("k" * 65536, U8, 1)]), "key = 65536 bytes long at byte 24"),
    "NAME_NOT_UTF8": (
        raw.gguf([], tensors(name=b"\xe2\x96"), bytes(82)),
        r"tensor 0 name = .* at byte 32, expected UTF-8",
    ),
    "NAME_WITH_ZERO": (raw.gguf([], tensors(name="a\0b"), bytes(82)), r"tensor 0 name = 'a\\x00b' at byte 24"),
    "NAME_EMPTY": (raw.gguf([], tensors(name=""), bytes(82)), "tensor 0 name = '' at byte 24"),
    "N_DIMS_2_32": (raw.gguf([], tensors(n_dims=2**32 - 1), bytes(82)), "n_dims = 4294967295 at byte 43"),
    "N_KV_MORE_THAN_THE_FILE_HOLDS": (raw.gguf(n_kv=1), "n_kv = 1 at byte 16, expected at most 0: only 0 bytes follow"),
    "N_TENSORS_MORE_THAN_THE_FILE_HOLDS": (raw.gguf(n_tensors=1), "n_tensors = 1 at byte 8"),
    "N_KV_2_62": (raw.gguf(n_kv=2**62), "n_kv = 4611686018427387904 at byte 16"),
    "N_TENSORS_2_62": (raw.gguf(n_tensors=2**62), "n_tensors = 4611686018427387904 at byte 8"),
    "ALIGN_0": (raw.gguf([raw.pair(ALIGN, U32, 0)]), "value = 0 at byte 53"),
    "ALIGN_2_31_WITHOUT_DATA": (raw.gguf([raw.pair(ALIGN, U32, 2**31)], tensors(2**31)), "end of data = 2147483680"),
    "BLOCKS_CUT_BY_A_ROW": (
        raw.gguf([], tensors(type=TYPE_Q4_0)),
        r"dims\[0\] = 8 at byte 47, expected a multiple of 32",
    ),
    "BLOCKS_WITHOUT_DIMS": (raw.gguf([], tensors(type=TYPE_Q4_0, dims=[])), r"dims\[0\] = 1 at byte 47"),
    "TYPE_NEGATIVE": (raw.gguf([], tensors(type=-1)), "type = -1 at byte 55"),
    "PRODUCT_WRAPS_TO_4": (
        raw.gguf([], tensors(dims=[4194305, 4194305, 211106198978564])),
        "dims = 4194305 x 4194305 x",
    ),
    "ZERO_HIDES_AN_OVERFLOW": (raw.gguf([], tensors(dims=[2**62, 2**62, 0])), "dims = .* fewer than 2..63 elements"),
    "ZERO_HIDES_AN_OVERFLOW_OF_ELEMENTS": (
        raw.gguf([], tensors(dims=[2**62, 2, 0], type=TYPE_Q4_0)),
        "dims = .* fewer than 2..63 elements",
    ),
    "ELEMENTS_OVERFLOW_BEFORE_BYTES": (
        raw.gguf([], tensors(dims=[2**62, 2], type=TYPE_Q4_0)),
        "dims = .* fewer than 2..63 elements",
    ),
    "HOLE": (
        raw.gguf([], [tensors()[0], raw.tensor("b", [8], TYPE_F32, 64)], bytes(96)),
        "offset = 64 at byte .*expected 32",
    ),
    "OVERLAP": (
        raw.gguf([], [tensors()[0], raw.tensor("b", [8], TYPE_F32, 0)], bytes(96)),
        "offset = 0 at byte .*expected 32",
    ),
    "OUT_OF_ORDER": (raw.gguf([], tensors()[::-1], bytes(96)), "'my_tensor_2' offset = 64 at byte"),
    "BIG_ENDIAN": (
        [b"GGUF", struct.pack(">Iqq", 3, 0, 0)],
        "version = 3 in big-endian order at byte 4, .*gguf-convert-endian",
    ),
    "ONLY_MAGIC": ([b"GGUF"], "version = 0 bytes before the end of the file at byte 4, expected 4 bytes"),
    "HALF_OF_THE_MAGIC": ([b"GG"], "magic = 2 bytes before the end of the file at byte 0"),
}


def small_file() -> Fields:
    """Every kind of field, and a last tensor without zeros after it."""
    pairs = [
        raw.pair("general.architecture", STR, "llama"),
        raw.pair(ALIGN, U32, 32),
        raw.pair("u8", U8, 1),
        raw.pair("flag", BOOL, 1),
        raw.pair("split.no", U16, 0),
        raw.array("tokenizer.ggml.tokens", STR, ["a", "", "Ġthe", b"\xff"]),
        raw.array("ints", I32, [1, 2, 3]),
    ]
    return raw.gguf(pairs, tensors(), bytes(range(82)))


def long_headers() -> dict[str, tuple[Fields, float]]:
    """Headers of about 1 MB or 300,000 strings that go wrong at their very end: (fields, seconds allowed)."""
    many = lambda text, count: [*raw.array("tokenizer.ggml.tokens", STR, [], count), raw.join(raw.string(text)) * count]
    keys = [raw.array(f"{i:04x}", BOOL, [1]) for i in range(MAX_KEYS - 1)]
    table = [raw.tensor(f"{i:04x}", [], TYPE_I8, 32 * i) for i in range(MAX_TENSORS - 1)]
    mixed = raw.gguf([*keys, many(b"\xff", 90_000)], table, n_tensors=MAX_TENSORS)
    return {
        "empty strings": (raw.gguf([many("", 130_000)], n_kv=2), 0.05),
        "one long string": (raw.gguf([raw.pair("k", STR, "x" * 1_000_000)], n_kv=2), 0.05),
        "numbers": (raw.gguf([raw.array("k", F32, []), raw.array("n", U8, [0] * 1_000_000)], n_kv=3), 0.05),
        "arrays": (raw.gguf(keys, n_kv=MAX_KEYS), 0.05),
        "tensors": (raw.gguf([], table, n_tensors=MAX_TENSORS), 0.05),
        "tensors without data": (raw.gguf([], table), 0.05),
        "all at once": (mixed, 0.05),
        "300,000 tokens": (raw.gguf([many("token", 300_000)], n_kv=2), 1),
    }


LONG = long_headers()


def mutate(fields: Fields, rng: Random) -> bytes:
    """One to three changes to fields: a number, a byte, a length, an order, a cut."""
    fields = list(fields)
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(fields))
        field = fields[i]
        kind = rng.randrange(7)
        if kind <= 2 and len(field) in (1, 2, 4, 8):  # a count, a length, a type, a dimension or an offset
            near = int.from_bytes(field, "little") + rng.choice((-1, 1, 31, 32, 256))
            edges = (0, 1, 2, 4, 8, 9, 31, 33, 2**16, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, -1, near)
            fields[i] = raw.unsigned(rng.choice(edges), len(field))
        elif kind == 3 and field:
            at = rng.randrange(len(field))
            fields[i] = field[:at] + bytes([rng.randrange(256)]) + field[at + 1 :]
        elif kind == 4:
            fields.insert(rng.randrange(len(fields)), field)
        elif kind == 5:
            del fields[i]
        else:
            fields[i] = field[: rng.randrange(len(field) + 1)]
        if not fields:
            break
    whole = raw.join(fields)
    return whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.1 else whole
