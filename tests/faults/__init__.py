"""The fault suite: one table of faults, each injected into real processes, and what must hold after each (tests/README.md)."""
