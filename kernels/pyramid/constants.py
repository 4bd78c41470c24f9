"""Numbers that the compiled loops and their plain definitions share."""

REACH = 4  # rows above and columns on both sides that a neighbour may lie away
LOG_SCALE_BEGIN = -1.0  # log-scale of a context net whose raw output is 0
LOG_SCALE_LOW, LOG_SCALE_HIGH = -4.0, 3.875
GAIN = 16.0  # latents are kept divided by this: a rate of 1e-2 is a sixth of a quantisation step
