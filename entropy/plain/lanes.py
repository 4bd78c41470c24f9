"""Steps of adaptive models on several numbers at once, one by one: the definition of `compiled.lanes`."""

from __future__ import annotations

WIDTH = 8
FOUR = 4


def stretched_sum(memory, slots, i, first, second, table, out):  # type: ignore[no-untyped-def]
    """Stretched probabilities of four counters, into out[i:]; returns their sum by two sets of weights.

    memory, out: int32; slots: int64, i: the first counter; first, second: where the weights of counter 0 lie; table:
    int16, of the upper 12 bits of a counter.
    """
    total = 0
    for k in range(i, i + FOUR):
        out[k] = table[memory[slots[k]] >> 19]
        total += int(out[k]) * (int(memory[first + k]) + int(memory[second + k]))
    return total


def weights_step(memory, at, out, i, error, most):  # type: ignore[no-untyped-def]
    """memory[at + i:] += out[i:] error / 2**18, rounded, between -most and most; four of them, products in 32 bits."""
    for k in range(i, i + FOUR):
        step = (int(out[k]) * error + (1 << 17)) >> 18
        memory[at + k] = min(max(int(memory[at + k]) + step, -most), most)


def product_sum(a, at, x, i):  # type: ignore[no-untyped-def]
    """Sum of a[at + i:] x[i:], int32, over WIDTH of them."""
    return sum(int(a[at + k]) * int(x[k]) for k in range(i, i + WIDTH))


def products_fade(cov, at, v, j, g, fade):  # type: ignore[no-untyped-def]
    """cov[at + j:] += g v[j:] - cov / 2**fade, int32, WIDTH of them."""
    for k in range(j, j + WIDTH):
        c = int(cov[at + k])
        cov[at + k] = c + int(g) * int(v[k]) - (c >> fade)


def rest_fade(rest, at, v, j, e, decay):  # type: ignore[no-untyped-def]
    """rest[at + j:] += e v[j:] / 4 - rest / 2**decay, WIDTH of them; products in 32 bits, rest in 64."""
    for k in range(j, j + WIDTH):
        r = int(rest[at + k])
        rest[at + k] = r + ((int(v[k]) * int(e)) >> 2) - (r >> decay)


def rest_less(rest, at, cov, row, j, g):  # type: ignore[no-untyped-def]
    """rest[at + j:] -= cov[row + j:] g / 2**15, WIDTH of them; g has less than 32 bits."""
    for k in range(j, j + WIDTH):
        rest[at + k] = int(rest[at + k]) - ((int(cov[row + k]) * int(g)) >> 15)
