"""Whatever takes arrays or tensors takes them in every layout, byte order and container: the same result. Whatever
does not suit it, down to its dtype, is one clear error, and what is taken of another dtype is what it says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import latentzip as lz

from .surfaces import Surface, surfaces


class OwnArray(np.ndarray):
    pass


class OwnTensor(torch.Tensor):
    pass


def arrays(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The same numbers, however they lie."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    back = (slice(None, None, -1),) * a.ndim
    fields = np.zeros(a.shape, np.dtype([("pad", "u1"), ("v", a.dtype)]))
    fields["v"] = a
    locked = a.copy()
    locked.flags.writeable = False
    foreign = a.astype(a.dtype.newbyteorder(">"))
    yield from {
        "strided": wide[..., ::2], "reversed": a[back].copy()[back], "Fortran": np.asfortranarray(a),
        "transposed": np.ascontiguousarray(np.moveaxis(a, -1, 0)).transpose(*range(1, a.ndim), 0),
        "read-only": locked, "big-endian": foreign, "big-endian Fortran": np.asfortranarray(foreign),
        "subclass": a.copy().view(OwnArray), "unaligned": fields["v"], "nothing masked": np.ma.masked_array(a, False),
    }.items()  # fmt: skip


def tensors(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    t = torch.from_numpy(a.copy())
    wide = torch.zeros(*t.shape[:-1], 2 * t.shape[-1], dtype=t.dtype)
    wide[..., ::2] = t
    yield "strided", wide[..., ::2]
    yield "transposed", t.transpose(0, -1).contiguous().transpose(0, -1)
    if t.ndim == 4:
        yield "channels_last", t.contiguous(memory_format=torch.channels_last)
    if t.is_floating_point():
        yield "with gradient", t.clone().requires_grad_()
        yield "of a graph", t.clone().requires_grad_() * 1
    if t.dtype.is_signed:
        yield "negated", torch._neg_view(-t)  # type: ignore[attr-defined]
    yield "parameter", nn.Parameter(t.clone(), requires_grad=t.is_floating_point())
    yield "subclass", t.clone().as_subclass(OwnTensor)
    with torch.inference_mode():
        yield "of inference mode", t.clone()


NUMPY = [f"{kind}{8 * size}" for size in (1, 2, 4, 8) for kind in ("int", "uint")]
NUMPY += ["bool", "float16", "float32", "float64", "longdouble", "complex64"]
TORCH = [d.replace("longdouble", "bfloat16") for d in NUMPY] + ["float8_e4m3fn"]


def strange(a: np.ndarray, tensor: bool) -> Iterator[tuple[str, Any]]:
    """What no function of numbers takes."""
    yield from {"None": None, "a set": {1, 2}, "a dict": {"a": a}, "a generator": iter([1, 2]), "a word": "abc"}.items()
    if tensor:
        t = torch.from_numpy(a.copy())
        yield "meta", t.to("meta")
        if t.dtype != torch.uint16:  # which torch cannot make sparse or nested
            yield "sparse", t.to_sparse()
            yield "nested", torch.nested.nested_tensor([t, t])
        if t.dtype == torch.float32:
            yield "quantised", torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)
    else:
        yield "objects", a.astype(object)
        yield "words", a.astype(str)
        yield "records", np.zeros(a.shape, [("a", "f4"), ("b", "i4")])
        yield "dates", np.zeros(a.shape, "M8[s]")
        yield "masked", np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) % 7 == 0)
        yield "complex", a.astype(np.complex128)


def shapes(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "a scalar", a.reshape(-1)[:1].reshape(())
    yield "nothing", a[:0]
    yield "nothing inside", a[..., :0]
    yield "flat", a.reshape(-1)
    yield "six axes", a.reshape((1,) * (6 - a.ndim) + a.shape)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def made() -> dict[str, Surface]:
    return surfaces()


NAMES = list(surfaces())
REFUSED = {"strided", "reversed", "Fortran", "transposed", "big-endian", "big-endian Fortran", "unaligned"}
FORMS = ["arrays", "tensors"]


@pytest.fixture
def case(made, name, form):
    """(surface, value, its result) of arrays or of tensors."""
    surface: Surface = made[name]
    value = surface.array if form == "arrays" else surface.tensor
    if value is None:
        return None
    return surface, value, surface.run(value if form == "arrays" else torch.from_numpy(value.copy()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_layouts(case, name, form):
    if case is None:
        return
    surface, value, want = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layout, x in (arrays if form == "arrays" else tensors)(value):
            if name == "numcodecs" and layout in REFUSED:  # a buffer has to lie as Zarr lays it
                with pytest.raises(lz.InputError, match=r"create the array|byte order"):
                    surface.run(x)
                continue
            assert equal(want, surface.run(x)), layout


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(case, name, form):
    if case is None:
        return
    surface, value, want = case
    own = str(value.dtype)
    for dtype in NUMPY if form == "arrays" else TORCH:
        with np.errstate(all="ignore"):
            x = value.astype(dtype) if form == "arrays" else torch.from_numpy(value.copy()).to(getattr(torch, dtype))
        fits = dtype in (*surface.takes.split(), own)
        try:
            found = surface.run(x)
        except (lz.CodecError, *surface.errors):
            assert not fits or dtype in ("longdouble", "bfloat16"), dtype
            continue
        assert "complex" not in dtype
        assert "float8" not in dtype
        if not fits:
            continue  # a dtype of a scale of its own, such as 16 bits: the other files have those
        if surface.back is not None:
            error = np.abs(surface.back(found).astype(np.float64) - surface.back(want)).max()
            assert error < 0.05, dtype
        elif surface.same and np.array_equal(x if form == "arrays" else x.double().numpy(), value):
            assert equal(want, found), dtype


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_array_of_numbers(case, name, form):
    if case is None:
        return
    surface, value, _ = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about prototypes
        things = list(strange(value, form == "tensors"))
    for what, x in things:
        if x is None and surface.none:
            continue
        try:
            surface.run(x)
        except (lz.CodecError, OSError, *surface.errors):  # a word is a path
            continue
        pytest.fail(f"{what} was taken")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(case, name, form):
    if case is None:
        return
    surface, value, _ = case
    for what, x in shapes(value):
        try:
            surface.run(x if form == "arrays" else torch.from_numpy(np.array(x)))
        except (lz.CodecError, *surface.errors):
            continue
        assert surface.any_shape, what
