"""The training lifecycle: the only part of bz, with `bz.testing`, that imports torch."""
