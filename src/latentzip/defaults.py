"""What is taken when nothing else is asked for."""

DEFAULT_CODEC = "hyperprior"  # what `encode` and `codec-cli encode` use for pictures
DEFAULT_PACK_CODEC = "walloc-rgb-16x"  # what data sets that are trained on are packed with
DEFAULT_SOUND_CODEC = "audio"  # the same as the first for sound
