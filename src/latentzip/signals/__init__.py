"""Kinds of signal, a room each: from what users hand in to what codecs take, and back to the same kind."""
