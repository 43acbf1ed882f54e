"""Asking a model behind an OpenAI-compatible endpoint: what it costs said first, every reply kept, nothing paid twice."""
