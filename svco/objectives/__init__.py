"""The losses: pure functions of the (P, 2, V) log-probabilities, and their page README.md."""
