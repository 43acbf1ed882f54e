"""In how many bits two pictures that look alike may differ (:mod:`svco.data.looks`), apart from what computes that: help needs it
quickly."""

from __future__ import annotations

NEAR = 7
"""Bits of 64 in which each hash may differ by default: copies, recoloured pictures and most pasted objects are within, crops to
90% and less, and other photographs, are not."""
MOST_NEAR = 15
"""Bits that can be asked for: from 18 on hashes of unlike photographs begin to meet."""
