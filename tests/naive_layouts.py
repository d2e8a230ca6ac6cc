"""Packed layouts of other people's files, one bit at a time, from lists of ints. Imports the standard library only.

Every function takes codes[out][in] (and zero points [out][group]) and returns rows of unsigned words or bytes, as the
source named in refquant/layouts has them; nothing here is shared with it.
"""


def empty(rows, columns):
    return [[0] * columns for _ in range(rows)]


def stream(codes, bits, word=32):
    """Bit b of code i is bit i * bits + b of the row, counted from the lowest bit of word 0."""
    rows = []
    for row in codes:
        words = [0] * -(-len(row) * bits // word)
        for i, code in enumerate(row):
            for b in range(bits):
                place = i * bits + b
                words[place // word] |= (code >> b & 1) << place % word
        rows.append(words)
    return rows


def aligned(codes, bits):
    """32 // bits whole codes to a word."""
    fields = 32 // bits
    rows = []
    for row in codes:
        words = [0] * -(-len(row) // fields)
        for i, code in enumerate(row):
            words[i // fields] += code * 2 ** (bits * (i % fields))
        rows.append(words)
    return rows


def planar(codes, bits):
    """gptq_p: 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1, 3 = 2 + 1; the words of a plane are neighbours."""
    widths = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}[bits]
    rows = []
    for row in codes:
        words = []
        for block in range(0, len(row), 32):
            low = 0
            for width in widths:
                plane = [0] * width
                for j in range(32):
                    part = row[block + j] >> low & (2**width - 1)
                    plane[j * width // 32] += part << j * width % 32
                words += plane
                low += width
        rows.append(words)
    return rows


def transposed(rows):
    return [list(column) for column in zip(*rows)]


def gptq(codes, zero, bits, version):
    """(qweight, qzeros): words down the inputs, zeros [group][word] along the outputs; v1 has z - 1 modulo 2^bits."""
    pack = planar if version == "gptq_p" else stream
    stored = transposed(zero)
    if version == "gptq":
        stored = [[(z - 1) % 2**bits for z in row] for row in stored]
    return transposed(pack(codes, bits)), pack(stored, bits)


def gptq_v1_words(zero, bits):
    """qzeros as gptqmodel makes them of v2: one subtraction a word, which borrows across fields."""
    ones = sum(1 << shift for shift in range(0, 32, bits))
    return [[(word - ones) % 2**32 for word in row] for row in stream(transposed(zero), bits)]


def awq_gemm(codes, zero):
    """(qweight, qzeros): output 8c + o sits in nibble PLACE[o] of word c."""
    place = {0: 0, 2: 1, 4: 2, 6: 3, 1: 4, 3: 5, 5: 6, 7: 7}

    def pack(rows):  # [out][k] -> [k][out / 8]
        words = empty(len(rows[0]), len(rows) // 8)
        for o, row in enumerate(rows):
            for k, code in enumerate(row):
                words[k][o // 8] |= code << 4 * place[o % 8]
        return words

    return pack(codes), pack(zero)


def awq_gemv_fast(codes):
    """qweight as [out / 4][in] 16-bit words. Input 64b + 32h + 8a + 2c + d of output 4r + j is at 8c + 4d + a."""
    outs, ins = len(codes), len(codes[0])
    words = empty(outs // 4, ins)
    for o in range(outs):
        for i in range(ins):
            b, h, a, c, d = i // 64, i % 64 // 32, i % 32 // 8, i % 8 // 2, i % 2
            nibble = (o % 4) * 64 + 32 * h + 8 * c + 4 * d + a
            words[o // 4][64 * b + nibble // 4] |= codes[o][i] << 4 * (nibble % 4)
    return words


def high_nibble_first(row, pad=0):
    """Bytes of a flat row, the first code high; an odd end is padded."""
    row = [*row, pad] if len(row) % 2 else row
    return [first * 16 + second for first, second in zip(row[::2], row[1::2])]


def output_pairs(codes):
    """modelopt int4: rows 2r (low) and 2r + 1 (high) of q - 8 in two's complement share a byte."""
    rows = []
    for even, odd in zip(codes[::2], codes[1::2]):
        rows.append([((a - 8) % 16) | ((b - 8) % 16) << 4 for a, b in zip(even, odd)])
    return rows


def slabs(rows, bits, high_first):
    """HQQ (first slab high, 3 bits: ten in a word) and quanto (first slab low): equal heights, zeros at the end."""
    count = {8: 1, 6: 1, 5: 1, 4: 2, 3: 10, 2: 4, 1: 8}[bits]
    height = -(-len(rows) // count)
    packed = empty(height, len(rows[0]))
    for r, row in enumerate(rows):
        slab = r // height
        shift = bits * (count - 1 - slab if high_first else slab)
        for c, code in enumerate(row):
            packed[r % height][c] |= code << shift
    return packed


def ggml_block(codes, bits):
    """The qs (and qh) of one block of 32: byte j holds codes j and 16 + j; the fifth bits follow one another."""
    qs = [codes[j] % 16 + codes[j + 16] % 16 * 16 for j in range(16)]
    fifth = sum((code >> 4) << i for i, code in enumerate(codes))
    return qs if bits == 4 else [*fifth.to_bytes(4, "little"), *qs]


def unstream(rows, bits, count, word=32):
    """The codes of rows of words, bit by bit: what `stream` packed."""
    return [
        [
            sum((row[(i * bits + b) // word] >> (i * bits + b) % word & 1) << b for b in range(bits))
            for i in range(count)
        ]
        for row in rows
    ]


def un_awq_gemm(rows, outs):
    """Codes [out][k] of words [k][out / 8]."""
    place = {0: 0, 2: 1, 4: 2, 6: 3, 1: 4, 3: 5, 5: 6, 7: 7}
    return [[row[o // 8] >> 4 * place[o % 8] & 15 for row in rows] for o in range(outs)]


def unslabs(packed, bits, count, high_first):
    """The rows that `slabs` packed."""
    slab_count = {8: 1, 6: 1, 5: 1, 4: 2, 3: 10, 2: 4, 1: 8}[bits]
    height = len(packed)
    rows = []
    for r in range(count):
        slab = r // height
        shift = bits * (slab_count - 1 - slab if high_first else slab)
        rows.append([word >> shift & (2**bits - 1) for word in packed[r % height]])
    return rows


def unplanar(rows, bits, count):
    """What `planar` packed: each plane in turn."""
    widths = {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}[bits]
    out = []
    for row in rows:
        codes = [0] * count
        for i in range(count):
            at, low = i // 32 * bits, 0
            for width in widths:
                place = i % 32 * width
                codes[i] |= (row[at + place // 32] >> place % 32 & 2**width - 1) << low
                at, low = at + width, low + width
        out.append(codes)
    return out


def unaligned(rows, bits, count):
    """What `aligned` packed."""
    fields = 32 // bits
    return [[row[i // fields] >> bits * (i % fields) & 2**bits - 1 for i in range(count)] for row in rows]
