"""From pairs to packed micro-batches: encoded, laid out, divided among ranks, loaded."""
