"""Live sound through a pipe: 16-bit samples from standard input to packets, or packets back to samples.

    arecord -f S16_LE -c 1 -r 16000 -t raw | python scripts/examples/live_pipe.py encode --kbps 24 > call.packets
    python scripts/examples/live_pipe.py decode --lose 20 < call.packets | aplay -f S16_LE -c 1 -r 16000

Between two machines put what carries bytes, `nc` or `ssh`, between the two. A packet is sent with its length in front,
two bytes; a real network sends packets as they are and says which are missing.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

import latentzip as lz
from latentzip.codecs.audio.live import LiveDecoder, LiveEncoder

_BLOCK_S = 0.01  # of sound that is read at once


def encode(source: BinaryIO, sink: BinaryIO, channels: int, rate: int, kbps: float) -> None:
    encoder = LiveEncoder(lz.load_codec("audio"), channels, rate, kbps=kbps)
    while data := source.read(2 * channels * int(_BLOCK_S * rate)):
        whole = len(data) // (2 * channels) * channels
        samples = np.frombuffer(data, "<i2", whole).reshape(-1, channels).T.astype(np.float32) / 32768
        _send(encoder.feed(torch.from_numpy(samples)), sink)
    _send(encoder.finish(), sink)


def _send(packets: list[bytes], sink: BinaryIO) -> None:
    for packet in packets:
        sink.write(struct.pack("<H", len(packet)) + packet)
        sink.flush()


def decode(source: BinaryIO, sink: BinaryIO, channels: int, rate: int, lose: float) -> None:
    decoder = LiveDecoder(lz.load_codec("audio"), channels, rate)
    chance = random.Random(1)
    while len(head := source.read(2)) == 2:
        packet = source.read(struct.unpack("<H", head)[0])
        _play(decoder.decode(None if chance.random() < lose / 100 else packet), sink)
    _play(decoder.finish(), sink)


def _play(samples: Tensor, sink: BinaryIO) -> None:
    integers = (samples.T * 32768).round().clamp(-32768, 32767).to(torch.int16)
    sink.write(integers.contiguous().numpy().astype("<i2").tobytes())
    sink.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("encode", "decode"))
    parser.add_argument("--channels", type=int, default=1, choices=(1, 2))
    parser.add_argument("--rate", type=int, default=16000, help="samples a second")
    parser.add_argument("--kbps", type=float, default=24, help="encode: kilobits a second, on average")
    parser.add_argument("--lose", type=float, default=0, metavar="PERCENT", help="decode: of the packets, to hear it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = sys.stdin.buffer, sys.stdout.buffer, args.channels, args.rate
    if args.way == "encode":
        encode(*pipe, args.kbps)
    else:
        decode(*pipe, args.lose)


if __name__ == "__main__":
    main()
