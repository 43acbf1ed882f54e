"""From log-probabilities to figures with errors."""
