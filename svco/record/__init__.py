"""What a run leaves on disk: checkpoints, its state, its numbers, and how they are read back."""
