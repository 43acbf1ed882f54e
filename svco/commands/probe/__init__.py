"""``svco probe``: perplexity of the right response with and without its image, and where in it the image counts."""
