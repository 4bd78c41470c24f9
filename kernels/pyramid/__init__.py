"""Compiled loops of codecs whose nets are fitted to one picture: context net, upsampling, synthesis, latents."""
