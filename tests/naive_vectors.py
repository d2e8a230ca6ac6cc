"""Decoders of vector and trellis codes once more, a weight at a time. Imports the standard library only."""

import struct
from functools import cache

from naive_gguf import f32

# five 3s and three 1s, in halves: the 29 patterns of norm 12 that E8P adds to those of norm 10 and less
NORM12 = (
    "31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133 33133311 33133131 "
    "33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113 31331313 13331133 13333311 13333131 "
    "13331331 13333113 13331313 11331333 33113331"
)


def f16(x):
    """x rounded to float16."""
    try:
        return struct.unpack("<e", struct.pack("<e", x))[0]
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def half(bits):
    """The float16 of 16 bits."""
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def aqlm(codes, books, scales):
    """Rows of weights: codes[i][j][m] picks a vector of books[m], size x rows x columns; scales by group of rows."""
    rows, columns = len(books[0][0]), len(books[0][0][0])
    out = [[0.0] * (len(codes[0]) * columns) for _ in range(len(codes) * rows)]
    for i, line in enumerate(codes):
        for j, ks in enumerate(line):
            for r in range(rows):
                for c in range(columns):
                    total = 0.0
                    for book, k in zip(books, ks):
                        total = f32(total + book[k if k >= 0 else k + len(book)][r][c])
                    out[i * rows + r][j * columns + c] = f32(total * scales[i])
    return out


@cache
def patterns():
    """The 256 patterns of E8P in order."""
    short = []
    for number in range(3**8):
        pattern = [number // 3**place % 3 + 0.5 for place in range(7, -1, -1)]
        if sum(x * x for x in pattern) <= 10:
            short.append(pattern)
    return short + [[int(digit) / 2 for digit in word] for word in NORM12.split()]


def e8p(code):
    """The eight weights of a code, as the loop over nibbles of the authors spells them."""
    signs, parity = code & 255, bin(code & 255).count("1") % 2
    signs ^= parity
    pattern = patterns()[code >> 8]
    reordered = [pattern[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    if sum(reordered) % 2:
        reordered[7] = -reordered[7]
    values = []
    for place in (0, 4, 1, 5, 2, 6, 3, 7):
        x = -reordered[place] if signs >> place & 1 else reordered[place]
        values.append(x - 0.25 if parity else x + 0.25)
    return values


def e8p_codes(words, rows, columns):
    """(row, column) -> code of the words of a file, which hold 16 rows by 8 codes together."""
    found = {}
    for number, word in enumerate(words):
        tile, inside = divmod(number, 32)
        band, stripe = divmod(tile, columns // 2)
        a, b = divmod(inside, 4)
        for i in range(4):
            signs = sum((word >> (32 + 4 * j + i) & 1) << j for j in range(8))
            at = (16 * band + 2 * a + i % 2, 8 * stripe + 2 * b + i // 2)
            found[at] = (word >> (8 * i) & 255) << 8 | signs
    return [[found[i, j] for j in range(4 * columns)] for i in range(rows)]


def stream(words):
    """The bits of 16-bit words, the highest of each first, as text."""
    return "".join(f"{word:016b}" for word in words)


def states(words, step):
    """The 16 bits from every `step`-th bit on, around the end."""
    text = stream(words)
    return [int((text + text)[at : at + 16], 2) for at in range(0, len(text), step)]


def one_mad(state):
    """A sum of four bytes."""
    y = (34038481 * state + 76625530) % 2**32
    return f32((sum(y.to_bytes(4, "little")) - 510) / f32(147.800537109375))


def halves(y):
    """Two float16 in 32 bits, masked and turned, and added."""
    z = (y & 0x8FFF8FFF) ^ 0x3B603B60
    return f16(half(z >> 16) + half(z & 0xFFFF))


def three_inst(state):
    """Of QTIP, and of EXL3 without a mark."""
    return halves((89226354 * state + 64248484) % 2**32)


def mcg(state):
    """Of EXL3."""
    return halves(state * 0xCBAC1FED % 2**32)


def mul1(state):
    """Of EXL3."""
    total = sum((state * 0x83DCD12D % 2**32).to_bytes(4, "little")) + 1024
    return f16(total * half(0x1EEE) + half(0xC931))


def hybrid(state, table):
    """Two weights of a table of 2^b."""
    bits = len(table).bit_length() - 1
    y = state * (state + 1)
    first, second = table[y >> (15 - bits) & (1 << bits) - 1]
    return [-first if y >> 15 & 1 else first, second]


def qtip(tiles, columns, bits, function, table=None):
    """Rows of weights; tiles of 16 x 16 by rows of tiles."""
    flat = []
    for words in tiles:
        if function == "hyb":
            flat.append([x for state in states(words, 2 * bits) for x in hybrid(state, table)])
        else:
            flat.append([{"1mad": one_mad, "3inst": three_inst}[function](s) for s in states(words, bits)])
    across = columns // 16
    height = 16 * len(tiles) // across
    return [[flat[i // 16 * across + j // 16][16 * (i % 16) + j % 16] for j in range(columns)] for i in range(height)]


def exl3_tile(words, function):
    """(row, column) -> weight of one tile; 16 k words, the later of each pair first."""
    k = len(words) / 16
    text = stream([words[i ^ 1] for i in range(len(words))])
    tile, end = {}, 0
    for t in range(256):
        end += int(k) + (k != int(k) and t % 2)
        state = int("".join(text[(end - 16 + i) % len(text)] for i in range(16)), 2)
        lane, i = t // 8, t % 8
        row = lane % 4 * 2 + (0, 1, 8, 9)[i % 4]
        value = {"3inst": three_inst, "mcg": mcg, "mul1": mul1}[function](state)
        tile[row, lane // 4 + (8 if i >= 4 else 0)] = value
    return tile


def exl3_weight(inner, left, right, row, column):
    """One weight (out, in) of inner[(in, out)] between transforms of 128 and scales of rows and columns."""
    top, side = column // 128 * 128, row // 128 * 128
    total = 0.0
    for i in range(128):
        line = 0.0
        for j in range(128):
            sign = -1 if bin(j & row % 128).count("1") % 2 else 1
            line += sign * inner[top + i, side + j]
        total += (-1 if bin(i & column % 128).count("1") % 2 else 1) * line
    return total / 128 * left[column] * right[row]


def vptq_indices(words, count, low, high):
    """(k, r) of each of `count` columns from the unsigned words of one row."""
    number = sum(word << (32 * i) for i, word in enumerate(words))
    both = [number >> (j * (low + high)) & (1 << (low + high)) - 1 for j in range(count)]
    return [b & (1 << low) - 1 for b in both], [b >> low for b in both]


def vptq(s, tensors, k, r, outliers):
    """Rows of weights. s: the settings by name; k, r [book][vector][column]; outliers [vector][column] or None."""
    (v0, v), ins = s["vector_lens"], s["in_features"]
    out = []
    first = len(outliers[0]) if outliers else 0
    perm = tensors.get("perm", list(range(ins)))
    for row in range(s["out_features"]):
        line = [0.0] * ins
        for place in range(ins):
            if place < first:
                x = tensors["outlier_centroids.weight"][0][outliers[row // v0][place] * v0 + row % v0]
            else:
                book, inside = divmod(place - first, s["group_size"])
                x = tensors["centroids.weight"][book][k[book][row // v][inside] * v + row % v]
                if r:
                    x = f32(x + tensors["res_centroids.weight"][book][r[book][row // v][inside] * v + row % v])
            line[perm[place]] = x
        if "weight_scale" in tensors:
            line = [f32(a * b) for a, b in zip(line, tensors["weight_scale"])]
        if "weight_bias" in tensors:
            line = [f32(a + b) for a, b in zip(line, tensors["weight_bias"])]
        out.append(line)
    return out
