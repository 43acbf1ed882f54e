"""Policy and reference: loading, adapters, attention, twin layers, scorer, log-probabilities."""
