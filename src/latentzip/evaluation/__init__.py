"""Measuring codecs: metrics on decoded signals, conventional codecs as peers, rate-distortion summaries."""
