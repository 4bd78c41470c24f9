"""Training: folders of images in, checkpoints and released weights out."""
