"""Packs SRC into DST again and again, each run killed by SIGKILL at a later moment, until one comes through.

A moment is a sample coded or a file put in place (just before it is). The parent only imports; every run is a fork of
it, so that no thread of the coder is lost in one. Prints how many runs were killed.
"""

import json
import os
import signal
import sys
from typing import Any


def pack_until(moment: int, source: str, target: str, codec: str, options: dict[str, Any]) -> None:
    """Pack, but kill this process when the given number of moments has passed."""
    import torch

    from latentzip.data.writing.packing import pack

    replace, left = os.replace, [moment]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def replacing(src: str, dst: str) -> None:
        tick()
        replace(src, dst)

    os.replace = replacing  # type: ignore[assignment]
    torch.set_num_threads(1)
    pack(source, target, codec, jobs=1, progress=lambda done, total: tick(), **options)


def main(source: str, target: str, codec: str, options: str) -> None:
    import latentzip
    from latentzip.data.writing import engines, packing  # noqa: F401  imported once, for all runs

    latentzip.load_codec(codec)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            pack_until(5 * killed, source, target, codec, json.loads(options))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            print(killed)
            return
        killed += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
