"""Sound as it comes: a packet every 12 to 18 ms, each decodable on its own, at a delay of at most 36 ms.

Frames are short and undivided; a packet is one frame: a byte for its quality, then what `coding.program` writes. The
windows of two frames overlap by half of each, so a sample is heard two frames after it was fed, and a packet that is
lost spoils its own frame and half a frame on both sides. What stands in for it is the spectrum of the frame before with
signs drawn anew, 3 dB fainter with each loss in a row: a short gap has something like the sound, a long one fades out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...entropy.coder import Decoder, Encoder
from ...entropy.errors import FormatError, InputError
from ...kernels.mdct import unlapped
from ..audio_base import peak
from ..contract import AnyCodec
from . import coding
from .analysis import analyse
from .codec import Audio, signs
from .layout import TREE_NUMBERS, TREES, Layout, division, frame_size, layout

LONGEST_MS = 18  # a frame at most
_WHOLE = TREE_NUMBERS[(0,)]
_SLACK = 4  # packets of the average size that the reservoir of a constant rate holds
_RISE = 8  # steps of quality from one packet to the next at most
_GROWTH = 0.055  # of a packet's size, as a logarithm, with each step of quality
_MEMORY = 0.98  # of what kind of sound it is, from packet to packet
_FADE = 2**-0.5  # of the amplitude, with each packet lost in a row


class _Live:
    def __init__(self, codec: AnyCodec, channels: int, rate: int) -> None:
        if not isinstance(codec, Audio) or codec.tables is None:
            raise InputError("live sound is coded with the codec audio: latentzip.load_codec('audio')")
        if channels not in (1, 2):
            raise InputError(f"live sound has 1 or 2 channels, not {channels!r}")
        if codec.coding_rate(rate) != rate:
            raise InputError(f"live sound has 8000 to 192000 Hz, not {rate!r}: resample it first")
        self.codec, self.tables, self.channels, self.rate = codec, codec.tables, channels, rate
        self.layout: Layout = layout(rate, channels, frame_size(rate, LONGEST_MS))

    @property
    def frame(self) -> int:
        """Samples that a packet stands for."""
        return self.layout.frame

    @property
    def delay(self) -> int:
        """Samples from one that is fed to the moment when it is heard, the channel's own time left out."""
        return 2 * self.layout.frame


class LiveEncoder(_Live):
    """Codes blocks of any size into packets that can be sent at once.

    Args:
        codec: `latentzip.load_codec("audio")`.
        channels: 1 or 2. rate: in Hz, 8000 to 192000.
        quality: 1..100. kbps: or a rate instead, which packets have on average; the reservoir behind it is four
            packets deep.

    Raises:
        InputError: none of these, or a quality and a rate at once.
    """

    def __init__(
        self, codec: AnyCodec, channels: int, rate: int, *, quality: float | None = None, kbps: float | None = None
    ) -> None:
        super().__init__(codec, channels, rate)
        if quality is not None and kbps is not None:
            raise InputError("quality and kbps contradict each other: leave one of them out")
        if kbps is not None and not kbps > 0:
            raise InputError(f"kbps is {kbps!r}; a number above 0 is needed")
        self._quality = self.codec.check_quality(quality)
        self._budget = None if kbps is None else kbps * 125 * self.frame / rate  # bytes a packet
        self._spare = 0.0  # bytes that packets before left unused
        self._before: Tensor | None = None  # the frame before the one to code
        self._waiting = torch.zeros(channels, 0)
        self._likeness = 0.0  # to speech, of the packets before

    def feed(self, x: Tensor) -> list[bytes]:
        """More samples (C, n) float32, full scale 1 -> the packets that are complete by now.

        Raises:
            InputError: another number of channels, NaN or infinite values.
        """
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise InputError(f"samples come as ({self.channels}, n), not {tuple(x.shape)}")
        peak(x)
        self._waiting = torch.cat([self._waiting, x.detach().float().cpu()], 1)
        packets = []
        while self._waiting.shape[1] >= self.frame * 3 // 2:
            packets.append(self._packet(self._waiting[:, : self.frame * 3 // 2]))
        return packets

    def finish(self) -> list[bytes]:
        """The packets of what is left, the last frame filled up with silence; the encoder then begins anew."""
        packets = []
        while self._waiting.shape[1]:
            piece = self._waiting[:, : self.frame * 3 // 2]
            packets.append(self._packet(torch.nn.functional.pad(piece, (0, -piece.shape[1] % self.frame))))
        self._before, self._likeness = None, 0.0
        return packets

    @torch.inference_mode()
    def _packet(self, x: Tensor) -> bytes:
        """Of the frame that x (C, n) begins with; behind it what of the next frame is known."""
        frame = x[:, : self.frame]
        x = torch.nn.functional.pad(x, (0, -x.shape[1] % self.frame))
        around = x if self._before is None else torch.cat([self._before, x], 1)
        at = 0 if self._before is None else 1
        self._before, self._waiting = frame, self._waiting[:, self.frame :]
        packet = self._coded(around, at) if self._budget is None else self._within(around, at)
        self._likeness = _MEMORY * self._likeness + coding.likeness(self._latent, self.layout, self.tables)
        return packet

    def _coded(self, around: Tensor, at: int, quality: int | None = None) -> bytes:
        quality = quality or self._quality
        trees = [_WHOLE] * (around.shape[1] // self.frame)
        latent = analyse(around, self.layout, quality, self.codec.config.rule, trees=trees)[:, at : at + 1]
        latent[0] += len(TREES) * (self._likeness > 0)
        self._latent = np.ascontiguousarray(latent)
        encoder = Encoder()
        coding.program(encoder, self._latent, 1, self.layout, self.tables, quality)
        return bytes([quality]) + encoder.finish()

    def _within(self, around: Tensor, at: int) -> bytes:
        """At a quality near that of the packet before, as high as the reservoir has room for: two codings mostly."""
        assert self._budget is not None
        limit = self._budget + self._spare
        quality = self._quality
        best = self._coded(around, at, quality)
        while len(best) > limit and quality > 1:
            quality = max(1, quality + min(-1, self._step(limit, best)))
            best = self._coded(around, at, quality)
        higher = min(100, quality + min(_RISE, self._step(limit, best)))
        if higher > quality >= self._quality and len(packet := self._coded(around, at, higher)) <= limit:
            quality, best = higher, packet
        self._quality = quality
        self._spare = min(self._spare + self._budget - len(best), _SLACK * self._budget)
        return best

    @staticmethod
    def _step(limit: float, packet: bytes) -> int:
        """Steps of quality from a packet's size to the limit."""
        return math.floor(math.log(max(limit, 1.0) / len(packet)) / _GROWTH)


class LiveDecoder(_Live):
    """Decodes packets as they come, or notes that one is missing.

    Args:
        codec, channels, rate: as of the encoder.
    """

    def __init__(self, codec: AnyCodec, channels: int, rate: int) -> None:
        super().__init__(codec, channels, rate)
        self._last: Tensor | None = None  # coefficients (C, frame) of the packet before
        self._number = 0

    @torch.inference_mode()
    def decode(self, packet: bytes | None) -> Tensor:
        """The next packet, or None for one that was lost -> the samples (C, n) float32 that are complete by now.

        The first packet gives half a frame, every later one a frame.

        Raises:
            FormatError: not a packet of such an encoder; the caller may count it as lost.
        """
        y = self._concealed() if packet is None else self._spectrum(packet)
        self._number += 1
        half = self.frame // 2
        if self._last is None:
            out = unlapped(y, [self.frame])[:, :half]
        else:
            out = unlapped(torch.cat([self._last, y], 1), [self.frame] * 2)[:, half : half + self.frame]
        self._last = y
        return out

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The last half frame; the decoder then begins anew."""
        if self._last is None:
            return torch.zeros(self.channels, 0)
        out = unlapped(self._last, [self.frame])[:, self.frame // 2 :]
        self._last, self._number = None, 0
        return out

    def _spectrum(self, packet: bytes) -> Tensor:
        if not packet or not 1 <= packet[0] <= 100:
            raise FormatError(
                "a packet of live sound begins with its quality, 1 to 100: it is corrupt or of another codec"
            )
        decoder = Decoder(packet[1:])
        latent = coding.program(decoder, None, 1, self.layout, self.tables, packet[0])
        decoder.finish()
        if division(latent[0])[1][0] != _WHOLE:
            raise FormatError("a packet of live sound holds one undivided frame: it is corrupt or of another codec")
        return self.codec.spectrum(latent, self.layout, packet[0], self._number)[0]

    def _concealed(self) -> Tensor:
        if self._last is None:
            return torch.zeros(self.channels, self.frame)
        place = np.arange(self._last.numel()) + self._number * self._last.numel()
        sign = np.where(signs(place), np.float32(_FADE), np.float32(-_FADE)).reshape(self._last.shape)
        return self._last * torch.from_numpy(sign)
