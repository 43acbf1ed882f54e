"""A decoder layer as numbers: its linear layers, and what one that carries a state is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """A linear layer."""

    name: str
    """Its last name, e.g. ``q_proj``."""
    inputs: int
    """Width of its input."""
    outputs: int
    """Width of its output."""

    @property
    def weights(self) -> int:
        """Elements of its matrix; a bias counts among the vectors."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Delta:
    """The decoder layers that carry a state instead of attending (gated DeltaNet)."""

    numbers: tuple[int, ...]
    """Which decoder layers they are."""
    linears: tuple[Linear, ...]
    """The linear layers of one."""
    vectors: tuple[int, ...]
    """Sizes of its other parameters, the convolution among them."""
    key_heads: int
    """Heads of queries and keys."""
    key_size: int
    """Width of one."""
    value_heads: int
    """Heads of values: each has a state of key size × value size."""
    value_size: int
    """Width of one."""
    width: int
    """Tokens that the convolution sees."""

    @property
    def weights(self) -> int:
        """Of one layer, without adapters."""
        return sum(linear.weights for linear in self.linears) + sum(self.vectors)

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_size + self.value_heads * self.value_size

    @property
    def state(self) -> int:
        """Elements of one layer's state."""
        return self.value_heads * self.key_size * self.value_size

    def among(self, first: int) -> int:
        """How many of the ``first`` decoder layers are of this kind."""
        return sum(number < first for number in self.numbers)
