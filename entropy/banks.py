"""The frozen banks of version 1, read from the package: integers made once, never rebuilt from `erf`.

Table i of a family has standard deviation `scales()[i]`: 64 of them, from 0.11 to 256, evenly spaced in log.
Profiles trade size for speed: "default" (12 bits, 32-bit decoding slots) costs at most 0.15 % over the ideal,
"fine" 14 and "max" 16 bits.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .tables import TableBank

NUM_SCALES = 64
PROFILES = {"default": 12, "fine": 14, "max": 16}
FAMILIES = ("gaussian", "laplace")


class PhiTable(NamedTuple):
    """What the integer mixture CDF is made of; see `mixture`."""

    phi: npt.NDArray[np.uint32]  # (2049,) normal CDF times 2**30, 128 steps a deviation from -8 to 8
    rate: npt.NDArray[np.int64]  # (64,) steps a sixteenth, times 2**20
    reach: npt.NDArray[np.int32]  # (64,) sixteenths that six deviations and one integer span


@cache
def _arrays() -> dict[str, np.ndarray]:
    with (
        resources.files(__package__ or "latentzip.entropy").joinpath("banks_v1.npz").open("rb") as file,
        np.load(file) as z,
    ):
        arrays = {k: z[k] for k in z.files}
    for a in arrays.values():
        a.flags.writeable = False
    return arrays


@cache
def frozen_bank(family: str = "gaussian", profile: str = "default") -> TableBank:
    """The bank of a family ("gaussian", "laplace") in a profile ("default", "fine", "max").

    Raises:
        InputError: no such family or profile.
    """
    if family not in FAMILIES or profile not in PROFILES:
        raise InputError(f"no frozen bank {family!r}/{profile!r}; families: {FAMILIES}, profiles: {tuple(PROFILES)}")
    head = f"{family}.{PROFILES[profile]}."
    return TableBank.from_arrays({k.removeprefix(head): v for k, v in _arrays().items() if k.startswith(head)})


@cache
def phi_table() -> PhiTable:
    """The integer normal CDF that mixtures are evaluated with."""
    a = _arrays()
    return PhiTable(a["phi"], a["phi_rate"], a["phi_reach"])


def scales() -> npt.NDArray[np.float64]:
    """(64,) standard deviations of the tables, ascending."""
    return _arrays()["scales"]
