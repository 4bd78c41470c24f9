"""Networks whose output is the same integers everywhere: for whatever chooses a symbol's interval.

A layer multiplies 8-bit integers in a float matmul. Float arithmetic on integers is exact in any order, on
any device, as long as no sum can leave +-2**24; every layer checks that bound for each output channel when it
is made. So threads, batch size, memory layout, oneDNN, TF32, float32 or float64 make no difference: TF32 keeps
eleven bits of an operand and bfloat16 eight, which hold weights and activations whole, and sums are float32. What
would make one is kept out: convolution kernels (Winograd and FFT leave the integers), autocast, nonlinear
functions other than clamping.

    acc = sum w * x                                             w int8, x integers in the layer's range
    y   = clamp((acc + bias + half) >> shift, low, high)        bias int32, a shift per channel

where half = 2**(shift - 1), or 0 without a shift.

`QatConv2d` and `QatLinear` are the counterparts to train: floats that lie on the same grids, so that their
output is, number for number, what the exported layer gives. `export` turns a trained `nn.Sequential` into an
exact one.

    net = nn.Sequential(QatConv2d(8, 32, 1, in_range=(-127, 127), in_frac=0, out_frac=4),
                        QatConv2d(32, 16, 3, padding=1, in_frac=4, out_frac=0, out_range=(0, 63)))
    ...                                     # train: net(z) is the index, differentiable
    index = export(net)(z_integers)         # int32, equal to net(z)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import InputError

BOUND = 1 << 24
Range = tuple[int, int]
UINT8: Range = (0, 255)


class _Exact(nn.Module):
    """What the exact layers share: integer buffers, the bound, and the requantisation."""

    weight: Tensor
    bias: Tensor
    shift: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor, in_range: Range, out_range: Range) -> None:
        super().__init__()
        for name, a in (("weight", weight), ("bias", bias), ("shift", shift)):
            if a.is_floating_point():
                raise InputError(f"{name} of an exact layer must be integers, not {a.dtype}")
        if bias.shape != weight.shape[:1] or shift.shape != weight.shape[:1]:
            raise InputError(f"{weight.shape[0]} output channels need as many biases and shifts")
        if not weight.is_meta and int(weight.abs().max()) > 127:  # before they are bytes
            raise InputError("weights of an exact layer must lie within +-127")
        if max(map(abs, in_range)) > 255:
            raise InputError(f"activations of an exact layer must fit nine bits with sign, not {in_range}")
        self.in_range, self.out_range = in_range, out_range
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("bias", bias.to(torch.int32))
        self.register_buffer("shift", shift.to(torch.int32))
        self.compute_dtype = torch.float32
        if not weight.is_meta:  # a meta tensor has sizes and no values
            self.check()

    def bounds(self) -> Tensor:
        """(O,) int64: the largest magnitude that any sum in a channel can reach."""
        w, b, s = self.weight.long(), self.bias.long(), self.shift.long()
        half = torch.where(s > 0, 1 << (s - 1).clamp(min=0), 0)
        return w.abs().flatten(1).sum(1) * max(map(abs, self.in_range)) + b.abs() + half

    def check(self) -> int:
        """The largest bound of all channels.

        Raises:
            InputError: a channel could leave the integers that float32 holds exactly, or a shift those that it may be.
        """
        if int(self.shift.min()) < 0 or int(self.shift.max()) > 23:
            raise InputError(f"shifts must lie in 0..23, not {int(self.shift.min())}..{int(self.shift.max())}")
        if int(self.weight.min()) < -127:
            raise InputError("weights of an exact layer must lie within +-127")
        bounds = self.bounds()
        worst = int(bounds.argmax())
        if int(bounds[worst]) >= BOUND:
            raise InputError(
                f"channel {worst} of an exact layer can reach {int(bounds[worst])}, 2**24 = {BOUND} or more: "
                "use smaller weights or fewer inputs"
            )
        return int(bounds[worst])

    def relaxed(self, x: Tensor) -> Tensor:
        """`forward` without rounding: real values, differentiable by ``x``, clamped where the layer clamps.

        A channel at an end of its range has no gradient, other than in training: what leaks there would drown the rest.
        """
        view = (-1,) + (1,) * (self.weight.dim() - 2)
        with no_autocast(x):
            acc = self._product(x.clamp(*self.in_range))
        real = (acc + self.bias.view(view)) * torch.exp2(-self.shift.float()).view(view)
        return real.clamp(*self.out_range)

    def _product(self, x: Tensor) -> Tensor:
        """The weighted sums, by any kernel, differentiable by ``x``."""
        raise NotImplementedError

    def _requantise(self, acc: Tensor, view: tuple[int, ...]) -> Tensor:
        shift = self.shift.view(view)
        half = (1 << shift) >> 1
        y = (acc.to(torch.int32) + self.bias.view(view) + half) >> shift
        return y.clamp(*self.out_range)

    def _input(self, x: Tensor) -> Tensor:
        # clamped, so that the bound holds whatever comes in
        return x.clamp(*self.in_range).to(self.compute_dtype)


class ExactLinear(_Exact):
    """y = x W^T over the last axis: (..., I) integers -> (..., O) int32; weight (O, I)."""

    def forward(self, x: Tensor) -> Tensor:
        """Integers (any dtype) to int32 in `out_range`."""
        with no_autocast(x):
            acc = torch.matmul(self._input(x), self.weight.to(self.compute_dtype).t())
        return self._requantise(acc, (-1,))

    def _product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class ExactConv2d(_Exact):
    """A 2-D convolution as a matmul: (B, I, H, W) -> (B, O, H', W') int32; weight (O, I / groups, kh, kw)."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        shift: Tensor,
        in_range: Range = UINT8,
        out_range: Range = UINT8,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__(weight, bias, shift, in_range, out_range)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: Tensor) -> Tensor:
        """Integers (any dtype) to int32 in `out_range`; zero padding."""
        o, _, kh, kw = self.weight.shape
        b, _, h, w = x.shape
        g = self.groups
        size = [(n + 2 * self.padding - k) // self.stride + 1 for n, k in ((h, kh), (w, kw))]
        with no_autocast(x):
            x = self._input(x)
            if kh == kw == self.stride == 1 and not self.padding:
                columns = x.reshape(b, g, -1, h * w)
            else:
                columns = F.unfold(x, (kh, kw), padding=self.padding, stride=self.stride)
                columns = columns.view(b, g, -1, columns.shape[-1])
            acc = torch.matmul(self.weight.to(self.compute_dtype).reshape(g, o // g, -1), columns)
        return self._requantise(acc.reshape(b, o, *size), (1, -1, 1, 1))

    def _product(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), None, self.stride, self.padding, groups=self.groups)


class _Qat(nn.Module):
    """What the trainable counterparts share: floats on power-of-two grids, straight-through rounding.

    Attributes:
        quantised: False leaves weights and outputs off their grids (the ranges still hold): for the first part of
            a training run, when gradients matter more than grids.
    """

    quantised: bool = True
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, in_range: Range, in_frac: int, out_range: Range, out_frac: int) -> None:
        super().__init__()
        self.in_range, self.in_frac = in_range, in_frac
        self.out_range, self.out_frac = out_range, out_frac

    def exponents(self) -> Tensor:
        """(O,) int64 e: weights are integers times 2**-e; the largest that int8, bound and shift allow."""
        w = self.weight.detach().double().abs().flatten(1)
        top, mass = w.amax(1).clamp(min=1e-12), w.sum(1)
        reach = mass * max(map(abs, self.in_range)) + self.bias.detach().double().abs() * 2.0**self.in_frac
        e = torch.minimum(torch.log2(127.0 / top).floor(), torch.log2(0.45 * BOUND / reach.clamp(min=1e-9)).floor())
        # the shift e + in_frac - out_frac must lie in 0..22
        least = self.out_frac - self.in_frac
        return e.clamp(max(least, -20), least + 22).long()

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """weight (O, ...) , bias (O,), shift (O,): what the exact layer will hold, int64."""
        e = self.exponents()
        grid = torch.exp2(e.double())
        view = (-1,) + (1,) * (self.weight.dim() - 1)
        w = torch.round(self.weight.detach().double() * grid.view(view)).clamp(-127, 127).long()
        b = torch.round(self.bias.detach().double() * grid * 2.0**self.in_frac).clamp(-(2.0**22), 2.0**22).long()
        return w, b, e + self.in_frac - self.out_frac

    @torch.no_grad()
    def restore(self, layer: _Exact) -> None:
        """Take over the weights of an exported layer: exporting again gives a layer of the same outputs.

        Raises:
            InputError: the layer is of another shape.
        """
        if layer.weight.shape != self.weight.shape:
            raise InputError(f"exact weights {tuple(layer.weight.shape)} do not fit {tuple(self.weight.shape)}")
        step = torch.exp2(-(layer.shift.double() - self.in_frac + self.out_frac))
        self.weight.copy_(layer.weight.double() * step.view((-1,) + (1,) * (self.weight.dim() - 1)))
        self.bias.copy_(layer.bias.double() * step * 2.0**-self.in_frac)

    def _on_grid(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weight and bias on their grids with gradients straight through, and each channel's half step."""
        if not self.quantised:
            return self.weight, self.bias, None
        w, b, shift = self.integers()
        e = self.exponents().double()
        view = (-1,) + (1,) * (self.weight.dim() - 1)
        weight = (w.double() * torch.exp2(-e).view(view)).to(self.weight.dtype)
        bias = (b.double() * torch.exp2(-e - self.in_frac)).to(self.bias.dtype)
        # floor(v + 1/2) rounds as the integer layer does; with no shift there is nothing to round
        half = torch.where(shift > 0, 0.5, 0.0).to(self.bias.dtype)
        return straight_through(weight, self.weight), straight_through(bias, self.bias), half

    def _input(self, x: Tensor) -> Tensor:
        step = 2.0**-self.in_frac
        return x.clamp(self.in_range[0] * step, self.in_range[1] * step)

    def _output(self, y: Tensor, half: Tensor | None, view: tuple[int, ...]) -> Tensor:
        unit = y * 2.0**self.out_frac
        low, high = self.out_range
        rounded = unit.detach() if half is None else torch.floor(unit.detach() + half.view(view))
        # the gradient is that of the clamp, a little of it beyond the ends so that no channel dies there
        clamped = unit.clamp(low, high) + 0.01 * (unit - unit.clamp(low, high))
        return straight_through(rounded.clamp(low, high), clamped) * 2.0**-self.out_frac


class QatConv2d(_Qat):
    """A convolution to train and export: x on the grid 2**-in_frac -> y on the grid 2**-out_frac, within
    their ranges.

    Args:
        in_range, out_range: integer ranges of the codes; (0, 255) acts as a ReLU that saturates.
        in_frac, out_frac: fraction bits: value = code * 2**-frac.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        in_range: Range = UINT8,
        in_frac: int = 5,
        out_range: Range = UINT8,
        out_frac: int = 5,
    ) -> None:
        super().__init__(in_range, in_frac, out_range, out_frac)
        like = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups)
        self.weight, self.bias = cast(nn.Parameter, like.weight), cast(nn.Parameter, like.bias)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) float to (B, O, H', W') float, both on their grids."""
        with no_autocast(x):
            w, b, half = self._on_grid()
            y = F.conv2d(self._input(x.to(w.dtype)), w, b, self.stride, self.padding, groups=self.groups)
            return self._output(y, half, (1, -1, 1, 1))

    def export(self) -> ExactConv2d:
        """The exact layer of the present weights; its bound is checked."""
        return ExactConv2d(*self.integers(), self.in_range, self.out_range, self.stride, self.padding, self.groups)


class QatLinear(_Qat):
    """A linear layer to train and export; arguments as in `QatConv2d`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        in_range: Range = UINT8,
        in_frac: int = 5,
        out_range: Range = UINT8,
        out_frac: int = 5,
    ) -> None:
        super().__init__(in_range, in_frac, out_range, out_frac)
        like = nn.Linear(in_features, out_features)
        self.weight, self.bias = cast(nn.Parameter, like.weight), cast(nn.Parameter, like.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) float to (..., O) float, both on their grids."""
        with no_autocast(x):
            w, b, half = self._on_grid()
            return self._output(F.linear(self._input(x.to(w.dtype)), w, b), half, (-1,))

    def export(self) -> ExactLinear:
        """The exact layer of the present weights; its bound is checked."""
        return ExactLinear(*self.integers(), self.in_range, self.out_range)


def export(net: nn.Sequential) -> nn.Sequential:
    """A trained stack of Qat layers (and pixel shuffles) as exact layers: integers in, int32 out.

    Raises:
        InputError: a layer that cannot be exact, a bound that is exceeded, or neighbours whose grids do not
        meet.
    """
    layers: list[nn.Module] = []
    before: _Qat | None = None
    for i, layer in enumerate(net):
        if isinstance(layer, (QatConv2d, QatLinear)):
            if before is not None and (
                before.out_frac != layer.in_frac or not _within(before.out_range, layer.in_range)
            ):
                raise InputError(
                    f"layer {i} takes {layer.in_range} with {layer.in_frac} fraction bits, "
                    f"the one before it gives {before.out_range} with {before.out_frac}"
                )
            layers.append(layer.export())
            before = layer
        elif isinstance(layer, (nn.PixelShuffle, nn.Identity)):
            layers.append(layer)
        else:
            raise InputError(f"layer {i} ({type(layer).__name__}) has no exact form: use Qat layers and PixelShuffle")
    return nn.Sequential(*layers).eval()


def restore(net: nn.Sequential, exported: nn.Sequential) -> None:
    """The inverse of `export`: the trainable stack takes over an exported one's weights.

    Raises:
        InputError: the stacks differ in shape.
    """
    if len(net) != len(exported):
        raise InputError(f"a stack of {len(exported)} exact layers does not fit one of {len(net)}")
    for own, given in zip(net, exported):
        if isinstance(own, _Qat) and isinstance(given, _Exact):
            own.restore(given)


def relaxed(net: nn.Sequential, x: Tensor) -> Tensor:
    """What an exported stack would give if no layer rounded: real values near its integers, differentiable by ``x``."""
    for layer in net:
        x = layer.relaxed(x) if isinstance(layer, _Exact) else layer(x)
    return x


def check_export(net: nn.Module) -> dict[str, int]:
    """The bound of every exact layer in a module, by name; raises InputError where one reaches 2**24."""
    return {name: layer.check() for name, layer in _exact_layers(net)}


def set_compute_dtype(net: nn.Module, dtype: torch.dtype) -> None:
    """Run the matmuls in float32 (the default) or float64; the integers are the same."""
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"exact layers compute in float32 or float64, not {dtype}")
    for _, layer in _exact_layers(net):
        layer.compute_dtype = dtype


def set_quantised(net: nn.Module, quantised: bool) -> None:
    """Whether the layers of a network in training run on their integer grids."""
    for layer in net.modules():
        if isinstance(layer, _Qat):
            layer.quantised = quantised


def scale_of(index: Any) -> Any:
    """The deviation of a (real-valued) scale number, differentiable: inverse of `models.scale_index`."""
    from .banks import scales

    s = scales()
    low, step = float(s[0]), float(torch.log(torch.tensor(s[-1] / s[0], dtype=torch.float64))) / (len(s) - 1)
    return low * torch.exp(index * step)


def _exact_layers(net: nn.Module) -> Iterator[tuple[str, _Exact]]:
    for name, layer in net.named_modules():
        if isinstance(layer, _Exact):
            yield name, layer


def straight_through(value: Tensor, gradient: Tensor) -> Tensor:
    """`value` to the last bit, with the gradient of `gradient`: what is added is exactly zero."""
    return value.detach() + (gradient - gradient.detach())


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def no_autocast(x: Tensor) -> torch.autocast:
    """Leave autocast on the device of a tensor."""
    return torch.autocast(device_type=x.device.type, enabled=False)
