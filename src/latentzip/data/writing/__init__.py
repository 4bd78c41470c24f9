"""Writing packs: samples from sources, prepared, coded by an engine, in shards."""
