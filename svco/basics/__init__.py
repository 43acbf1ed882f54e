"""What everything stands on: the vocabulary of views, errors, ranks, files, HTML pages, progress, signals, versions."""
