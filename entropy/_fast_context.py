"""The compiled body of `context_net.gather_plain`."""

from __future__ import annotations

import numba


@numba.njit(cache=True, nogil=True)
def gather(planes, base, offsets, tables, rows, which, out):  # type: ignore[no-untyped-def]
    """out[rows[f], i] = tables[which[f], planes[base[i] + offsets[f]]]."""
    for f in range(rows.size):
        table = tables[which[f]]
        row = out[rows[f]]
        offset = offsets[f]
        for i in range(base.size):
            row[i] = table[planes[base[i] + offset]]
