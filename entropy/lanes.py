"""Chooses the body of steps on several numbers at once: in registers, or plain Python where numba is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernels.compiled import wanted

COMPILED = wanted()
if COMPILED and not TYPE_CHECKING:  # of intrinsics checkers see one argument too many
    from .compiled import lanes as _body
else:
    from .plain import lanes as _body

FOUR, WIDTH = _body.FOUR, _body.WIDTH
stretched_sum, weights_step = _body.stretched_sum, _body.weights_step
product_sum, products_fade = _body.product_sum, _body.products_fade
rest_fade, rest_less = _body.rest_fade, _body.rest_less
