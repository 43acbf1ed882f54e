"""What the speed claims rest on: baselines, counters, the ladder and its report. Nothing in training imports this."""
