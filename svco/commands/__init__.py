"""One folder a command: its options, its work and its pages together."""
