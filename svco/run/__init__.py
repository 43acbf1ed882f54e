"""One training run as prose: resolve, load, fit, finish."""
