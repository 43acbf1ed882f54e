"""Where states fork in a packed row: random trees against the paths written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.batches.forks import CHUNK, Forks
from svco.batches.layout import Layout


@st.composite
def trees(draw):
    """(own range, ancestors' ranges) of a row's segments: several trees, of unequal depth, with short and long segments."""
    segments, here = [], 0
    for _ in range(draw(st.integers(1, 4))):
        paths = []
        for _ in range(draw(st.integers(1, 6))):
            ancestors = draw(st.sampled_from(paths)) if paths else ()
            own = (here, here + draw(st.sampled_from([1, 1, 2, 3, 5, CHUNK - 1, CHUNK + 1, 3 * CHUNK])))
            segments.append((own, ancestors))
            paths.append((*ancestors, own))
            here = own[1]
    return segments


@given(trees(), st.integers(1, 5))
@settings(max_examples=60)
def test_every_segment_goes_on_where_its_parent_ends(segments, width):
    layout = Layout.of(segments)
    forks = layout.forks(width)
    assert layout.forks(width) is forks, "made once for all layers"
    tokens = segments[-1][0][1]
    laid = []  # segments in the order of the levels
    above: list = []
    for depth, level in enumerate(forks.levels):
        here, cut = [], level.bounds.tolist()
        for first, last in zip(cut, cut[1:]):
            rows = level.index[first:last].tolist()
            own, ancestors = next(found for found in segments if found[0] == (rows[0], rows[-1] + 1))
            assert rows == list(range(*own)) and len(ancestors) == depth
            here.append((own, ancestors))
        if depth:
            assert [above[parent][0] for parent in level.parents.tolist()] == [ancestors[-1] for _, ancestors in here]
        else:
            assert level.parents is None
        # Padded blocks hold the same segments in the same order, and no token twice.
        assert [side.first for side in level.sides] == np.cumsum([0, *(len(s.index) for s in level.sides)])[
            :-1
        ].tolist()
        padded = [row for side in level.sides for row in side.index.flatten()[side.kept].tolist()]
        assert padded == level.index.tolist()
        for side in level.sides:
            members = here[side.first : side.first + len(side.index)]
            for row, real, (own, _) in zip(side.index, side.real, members, strict=True):
                assert real.tolist() == [n < own[1] - own[0] for n in range(len(row))]
                assert set(row[~real].tolist()) <= {own[0]}
        assert level.ends is (depth + 1 < len(forks.levels))
        laid, above = laid + here, here
    assert sorted(laid) == sorted(segments)
    placed = [row for level in forks.levels for row in level.index.tolist()]
    assert [placed[place] for place in forks.order.tolist()] == list(range(tokens))
    # What a convolution over the longer row sees of each token are its true ancestors.
    tails, kept = forks.tails.tolist(), forks.kept.tolist()
    for own, ancestors in segments:
        path = [tokens] * (width - 1) + [row for span in (*ancestors, own) for row in range(*span)]
        for n in range(own[1] - own[0]):
            end = len(path) - (own[1] - own[0]) + n + 1
            assert tails[kept[own[0] + n] - width + 1 : kept[own[0] + n] + 1] == path[end - width : end]


def test_a_segment_behind_none_of_the_row_is_refused():
    with pytest.raises(KeyError):
        Forks.of([(0, 3), (3, 5)], [[(0, 3)], [(0, 2), (3, 5)]], 4)
