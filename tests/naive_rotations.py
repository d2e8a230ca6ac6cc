"""Hadamard matrices and rotations once more, by their definitions. Imports the standard library only."""

import math

from naive_methods import inverse

CIRCULANTS = {  # Williamson's A, B, C, D: + for 1
    52: ("+-+--++++--+-", "+---++++++---", "++-+--++--+-+", "+----+--+----"),
    156: ("+++--+-+-----+--++----++--+-----+-+--++", "++++---+--++----+-+--+-+----++--+---+++",
          "+++--++-+---+-+--+----+--+-+---+-++--++", "+---++-+-+-----+++-++-+++-----+-+-++---"),
    172: ("+---++--++++-+-+++-++--++-+++-+-++++--++---", "++-++++++----+-+--++-++-++--+-+----++++++-+",
          "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++", "++---++++-+--+--++--------++--+--+-++++---+"),
}  # fmt: skip


def residue(a, q):
    """Legendre's symbol by Euler's criterion."""
    return 0 if a % q == 0 else 1 if pow(a, (q - 1) // 2, q) == 1 else -1


def entry(n, i, j):
    """H_ij of the order n."""
    kernel = next(
        k for k in (172, 156, 140, 108, 60, 52, 36, 28, 20, 12, 1) if n % k == 0 and (n // k).bit_count() == 1
    )
    sign = -1 if ((i // kernel) & (j // kernel)).bit_count() % 2 else 1
    return sign * small(kernel, i % kernel, j % kernel)


def small(n, i, j):
    """H_ij of an order that is tabled."""
    if n == 1:
        return 1
    if n in CIRCULANTS:
        m = n // 4
        name, sign = [["A+", "B+", "C+", "D+"], ["B-", "A+", "D-", "C+"], ["C-", "D+", "A+", "B-"],
                      ["D-", "C-", "B+", "A+"]][i // m][j // m]  # fmt: skip
        row = CIRCULANTS[n]["ABCD".index(name)]
        value = 1 if row[(j - i) % m] == "+" else -1
        return value if sign == "+" else -value
    if n in (28, 36):
        half = n // 2
        c, same = conference(half - 1, i % half, j % half, 1), i % half == j % half
        a, b = i // half, j // half
        return c * (-1 if a and b else 1) + same * (1 if not a and not b else -1)
    return (i == j) + conference(n - 1, i, j, -1)


def conference(q, i, j, top):
    """[[0, top], [1^T, R]], R_ij the residue of i - j."""
    if i == 0 or j == 0:
        return 0 if i == j else top if i == 0 else 1
    return residue(i - j, q)


def transform(x):
    """x H^T / sqrt(n); the sums of whole numbers are exact."""
    n = len(x)
    return [math.fsum(entry(n, i, j) * v for j, v in enumerate(x)) / math.sqrt(n) for i in range(n)]


def product(A, B):
    """A B of lists of rows."""
    return [[math.fsum(a * b for a, b in zip(row, column)) for column in zip(*B)] for row in A]


def turned(A):
    """A^T."""
    return [list(row) for row in zip(*A)]


def blocks_of_rows(W, P):
    """P^T times each block of len(P) rows."""
    found = []
    for start in range(0, len(W), len(P)):
        found += product(turned(P), W[start : start + len(P)])
    return found


def model(W, layers, Q, P, tied):
    """QuaRot's placement; W by name, norms and biases as lists of numbers."""
    W = dict(W)
    scaled = lambda name, gain: product([[a * g for a, g in zip(row, gain)] for row in W[name]], Q)
    W["output.weight"] = scaled("token_embd.weight" if tied else "output.weight", W["output_norm.weight"])
    W["token_embd.weight"] = product(W["token_embd.weight"], Q)
    W["output_norm.weight"] = [1.0] * len(Q)
    for layer in range(layers):
        blk = f"blk.{layer}"
        for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
            for name in readers:
                W[f"{blk}.{name}.weight"] = scaled(f"{blk}.{name}.weight", W[f"{blk}.{norm}.weight"])
            W[f"{blk}.{norm}.weight"] = [1.0] * len(Q)
        W[f"{blk}.attn_v.weight"] = blocks_of_rows(W[f"{blk}.attn_v.weight"], P)
        columns = turned(W[f"{blk}.attn_output.weight"])
        W[f"{blk}.attn_output.weight"] = turned(blocks_of_rows(columns, P))
        if f"{blk}.attn_v.bias" in W:
            column = blocks_of_rows([[b] for b in W[f"{blk}.attn_v.bias"]], P)
            W[f"{blk}.attn_v.bias"] = [b for (b,) in column]
        for name in ("attn_output", "ffn_down"):
            W[f"{blk}.{name}.weight"] = product(turned(Q), W[f"{blk}.{name}.weight"])
            if f"{blk}.{name}.bias" in W:
                W[f"{blk}.{name}.bias"] = [b for (b,) in product(turned(Q), [[b] for b in W[f"{blk}.{name}.bias"]])]
    return W


def cayley(R, G, lr):
    """(I + lr/2 A)^-1 (I - lr/2 A) R with A = G R^T - R G^T."""
    B, C = product(G, turned(R)), product(R, turned(G))
    A = [[b - c for b, c in zip(*rows)] for rows in zip(B, C)]
    plus, minus = (
        [[float(i == j) + s * lr / 2 * a for j, a in enumerate(row)] for i, row in enumerate(A)] for s in (1, -1)
    )
    return product(inverse(plus), product(minus, R))


def incoherent(W, left, right, after):
    """U W V^T; `after` rounds what each transform gives."""
    W = [[after(v) for v in transform([w * s for w, s in zip(row, right)])] for row in W]
    W = [[w * s for w in row] for row, s in zip(W, left)]
    return turned([[after(v) for v in transform(column)] for column in turned(W)])


def coherent(W, left, right):
    """The inverse."""
    Q, P = ([[entry(n, i, j) / math.sqrt(n) for j in range(n)] for i in range(n)] for n in (len(W), len(W[0])))
    back = product(product(turned(Q), W), P)
    return [[w * r * s for w, s in zip(row, right)] for row, r in zip(back, left)]
