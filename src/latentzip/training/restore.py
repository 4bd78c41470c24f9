"""Released weights as the start of a run: bytes become floats again, exact networks trainable ones."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..codecs.hyperprior import HyperpriorCodec
from ..codecs.hyperprior.priors import HyperPriors
from ..codecs.layers import ANCHORS
from ..entropy import exact
from ..entropy.errors import InputError


def trainable_hyperprior(codec: HyperpriorCodec) -> nn.ModuleDict:
    """The model and priors to train that a released codec was made of; exporting them at once gives the scales that its
    hyper-latent says.

    Raises:
        InputError: the codec has no entropy model.
    """
    if codec.hyper_bank is None:
        raise InputError(f"{codec.name} has no entropy model: it is no release")
    config = replace(codec.config, context=0)  # the networks that refine scales are fitted anew at export
    model, priors = HyperpriorCodec(config, codec.name), HyperPriors(config.hyper)
    nets = ("scale_net", "mixture_net") if config.components > 1 else ("scale_net",)
    given = {k: v for k, v in codec.state_dict().items() if k.partition(".")[0] not in (*nets, "scale_context")}
    model.load_state_dict(given, strict=False)
    for net in nets:
        exact.restore(getattr(model, net), getattr(codec, net))
    for group in range(ANCHORS):
        priors.of_group(group).restore(codec.hyper_bank, group * config.hyper)
    return nn.ModuleDict({"model": model, "priors": priors})
