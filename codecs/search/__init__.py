"""Search at encode time: the same weights, the same stream, fewer bytes at equal quality, or any measure of quality."""
