"""The pair format and reading it: pairs, shards, their index, their order, corrupted images."""
