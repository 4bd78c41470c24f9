"""The conventional codecs that ours are compared with, by kind of signal."""
