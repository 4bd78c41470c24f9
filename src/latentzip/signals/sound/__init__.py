"""Sound: files and pairs (samples, rate) to (C, T) floats, and back."""

# what a folder is searched for; files named one by one are recognised by their content
SUFFIXES = frozenset({
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".w64", ".rf64", ".caf"),
    *(".au", ".snd"),
})  # fmt: skip
