"""What everything stands on: the vocabulary of views, errors, ranks, files, progress, signals, versions."""
