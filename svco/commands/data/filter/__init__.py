"""Keeps the pairs whose images are alike in meaning and unlike in looks: two similarities and their thresholds."""
