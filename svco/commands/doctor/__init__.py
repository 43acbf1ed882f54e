"""The doctor: looks at every rank's machine before a run does, one line a check, a remedy for each that fails."""
