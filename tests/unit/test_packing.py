"""The packed row, as properties over random pairs: nothing lost, nothing twice, nobody sees a sibling."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.basics.views import ALL_CELLS, CORRUPT, condition
from svco.batches.balance import divide, imbalance
from svco.batches.encode import EncodedPair
from svco.batches.layout import Layout
from svco.batches.lengths import Lengths
from svco.batches.pack import PackedCollate
from svco.data.corruption import Corruptions
from svco.families import EncodedText, Pictures
from svco.recipe.config import CorruptConfig

PLACEHOLDER = 9


class Family:
    """Just what packing asks of a family: which ids are placeholders, whether those of an image see each other both ways, and
    pixels. An image is its own name here."""

    def __init__(self, two_way_images):
        self.two_way_images = two_way_images

    def image_token_mask(self, ids):
        return ids == PLACEHOLDER

    def pixels(self, images):
        return Pictures(torch.tensor(images, dtype=torch.float32).reshape(-1), tuple((i,) for i in images))


@st.composite
def pairs(draw):
    """Pairs with and without positions of their own (three axes) and budgets that differ between conditions."""
    made, own, cut = [], draw(st.booleans()), draw(st.booleans())
    for p in range(draw(st.integers(1, 4))):
        length = st.integers(1, 6)

        def ids(count, tag, p=p):
            return np.arange(count) + 1000 * (p + 1) + 100 * tag

        features = draw(st.integers(1, 4))
        before = np.arange(draw(st.integers(0, 2)))
        shown = [np.concatenate([before, np.full(features, PLACEHOLDER), ids(draw(length), tag)]) for tag in (0, 1)]
        prefixes = (*shown, ids(draw(length), 2))
        places = st.integers(0, 20)
        text = EncodedText(
            prefixes,
            responses=(ids(draw(length), 3), ids(draw(length), 4)),
            cut=0,
            positions=tuple(np.array([[draw(places) for _ in prefix] for _ in range(3)]) for prefix in prefixes if own),
            budgets=draw(st.tuples(length, length, length)) if cut else None,
        )
        made.append(
            EncodedPair(text, (2 * p, 2 * p + 1, None, 100 + 2 * p, 101 + 2 * p), float(draw(st.integers(0, 1))))
        )
    return made


CORRUPTED = [(0, CORRUPT), (1, CORRUPT)]
families = st.booleans().map(Family)
cells = st.sets(st.sampled_from([*sorted(ALL_CELLS), *CORRUPTED]), min_size=1).map(frozenset)


def text_of(shown):
    """A corrupted image (conditions 3 and 4) has the text of the image itself."""
    return {3: 0, 4: 1}.get(shown, shown)


def number_of_views(wanted):
    return 4 if wanted & set(CORRUPTED) else 3


def expected_sequences(batch_pairs, wanted):
    """flat cell -> (whole sequence of ids, its positions, number of scored tokens), as a plain trainer would lay them out."""
    found = {}
    for p, pair in enumerate(batch_pairs):
        for side, view in wanted:
            shown, text = text_of(condition(side, view)), pair.text
            prefix, response = text.prefixes[shown], text.responses[side]
            response = response[: text.budgets[shown]] if text.budgets else response
            places = text.positions[shown] if text.positions else np.arange(len(prefix))[None]
            behind = np.tile(places.max() + 1 + np.arange(len(response)), (len(places), 1))
            whole = np.concatenate([prefix, response]), np.concatenate([places, behind], axis=1)
            found[(2 * p + side) * number_of_views(wanted) + view] = (*whole, len(response))
    return found


def visibility(layout):
    """(T, T) bool from the ranges and kinds alone."""
    total = layout.queries[-1][1]
    seen = np.zeros((total, total), bool)
    for (start, stop), ranges, two_way in zip(layout.queries, layout.keys, layout.two_way):
        for low, high in ranges[:-1]:
            seen[start:stop, low:high] = True
        for query in range(start, stop):
            seen[query, start : stop if two_way else query + 1] = True
    return seen


def distances(layout, window):
    """(T, T) bool: what stands fewer than ``window`` tokens before another on its path, or behind it."""
    total = layout.queries[-1][1]
    near = np.ones((total, total), bool)
    for (start, stop), ranges in zip(layout.queries, layout.keys):
        path = [place for span in ranges for place in range(*span)]
        for query in range(start, stop):
            near[query, path[: max(0, path.index(query) - window + 1)]] = False
    return near


@settings(deadline=None)
@given(pairs(), cells, families)
def test_every_scored_token_sees_exactly_its_sequence(batch_pairs, wanted, family):
    """Following a cell's predicting positions and what they see gives back each whole sequence, in order, with its
    positions: prefixes shared, siblings unseen, every scored token once."""
    batch = PackedCollate(wanted)(batch_pairs, family)
    seen, ids, positions = visibility(batch.layout), batch.input_ids.numpy(), batch.position_ids[:, 0].numpy()
    sequences = expected_sequences(batch_pairs, wanted)
    assert set(batch.cell.tolist()) == sequences.keys()
    assert batch.view_count == number_of_views(wanted)
    for cell, (whole, places, scored) in sequences.items():
        mine = batch.cell.numpy() == cell
        assert batch.targets.numpy()[mine].tolist() == whole[-scored:].tolist()
        for offset, place in enumerate(batch.predicts.numpy()[mine]):
            context = np.flatnonzero(seen[place])
            assert ids[context].tolist() == whole[: len(whole) - scored + offset].tolist()
            assert positions[:, context].tolist() == places[:, : len(context)].tolist()
    assert batch.position_ids.shape == (3 if batch_pairs[0].text.positions else 1, 1, len(ids))
    assert batch.weight.tolist() == [pair.weight for pair in batch_pairs]
    assert batch.tokens.tolist() == [[len(r) for r in pair.text.responses] for pair in batch_pairs]


@settings(deadline=None)
@given(pairs(), cells, families)
def test_nothing_is_laid_out_twice_or_in_vain(batch_pairs, wanted, family):
    batch = PackedCollate(wanted)(batch_pairs, family)
    conditions = {}
    for side, view in wanted:
        conditions.setdefault(condition(side, view), set()).add(side)
    total, images = 0, []
    for pair in batch_pairs:
        for shown in sorted(conditions):
            total += len(pair.text.prefixes[text_of(shown)])
            total += sum(len(pair.text.response(side, text_of(shown))) - 1 for side in conditions[shown])
            images += [pair.images[shown]] if shown != 2 else []
    assert batch.llm_tokens == total
    assert batch.pixels.tolist() == images
    assert batch.grids == tuple((image,) for image in images), "one for each image that is shown"
    # Every position can be reached from a scored one, and placeholders come in the order of their images.
    assert visibility(batch.layout)[batch.predicts.numpy()].any(0).all()
    assert (batch.input_ids[batch.image_slots] == PLACEHOLDER).all()
    assert len(batch.image_slots) == (batch.input_ids == PLACEHOLDER).sum()
    # Pictures see themselves where the family says so, and nothing is of a kind of its own else.
    seen = visibility(batch.layout)
    mutual = (seen & seen.T & ~np.eye(len(seen), dtype=bool)).any(1)
    several = family.two_way_images & (batch.input_ids == PLACEHOLDER).numpy()
    assert (mutual <= several).all()
    assert not family.two_way_images or mutual.sum() == sum(
        stop - start for start, stop in batch.layout.queries if several[start] and stop - start > 1
    )
    assert bool(batch.layout.calls) is bool(several.any())
    assert set(batch.owners().tolist()) <= set(range(len(batch_pairs)))


def seen_by_calls(layout, rows):
    """(queries, T) what variable-length kernels let the queries ``rows`` of ``layout`` see."""
    seen, places = np.zeros((len(rows), layout.keys[-1][-1][1]), bool), []
    for call in layout.calls or (layout,):
        lengths = np.diff(call.cu_q.numpy())
        assert lengths.min() >= 1, "an empty segment hangs some kernels"
        assert call.max_q == lengths.max()
        assert call.max_k == np.diff(call.cu_k.numpy()).max()
        assert call.cu_q.dtype == call.cu_k.dtype == torch.int32
        mine = np.arange(len(rows)) if call.places is None else call.places.numpy()
        places.append(mine)
        for s in range(len(lengths)):
            keys = call.key_index[call.cu_k[s] : call.cu_k[s + 1]].numpy()
            queries = mine[call.cu_q[s] : call.cu_q[s + 1]]
            for number, query in enumerate(queries):  # bottom-right: the last query sees every key
                seen[query, keys[: len(keys) - (len(queries) - 1 - number if call.causal else 0)]] = True
    order = np.arange(len(rows)) if layout.order is None else layout.order.numpy()
    assert np.concatenate(places)[order].tolist() == list(range(len(rows)))
    return seen


@settings(deadline=None)
@given(pairs(), cells, families)
def test_kernel_arguments_say_what_the_ranges_say(batch_pairs, wanted, family):
    layout = PackedCollate(wanted)(batch_pairs, family).layout
    assert [(a, b) for a, b in zip(layout.cu_q.tolist(), layout.cu_q.tolist()[1:])] == list(layout.queries)
    visible = visibility(layout)
    assert (seen_by_calls(layout, np.arange(len(visible))) == visible).all()


def seen_in_blocks(layout, rows, window=None):
    """(queries, T) what the blocks of ``layout``, whose queries are ``rows``, let them see."""
    blocks, order = layout.blocks if window is None else layout.blocks_within(window)
    total, seen, places = layout.keys[-1][-1][1], [], []  # of each row that the blocks give, padding among them

    def sees(query, keys):
        places.append(query)
        seen.append(np.zeros(total, bool))
        seen[-1][keys] = True

    for block in blocks:
        assert block.mask.any(-1).all(), "a query that sees nothing gives NaN"
        for query in block.queries[:, : block.causal].flatten().tolist():
            (start,) = {own[0][0] for own in layout.keys if own[0][0] <= rows[query] < own[-1][1] and len(own) == 1}
            sees(query, slice(start, rows[query] + 1))
        for n, queries in enumerate(block.queries[:, block.causal :].tolist()):
            for i, query in enumerate(queries):
                sees(query, block.keys[n][block.mask[n, 0, i]].numpy())
    order = order.numpy()
    assert np.array(places)[order].tolist() == list(range(len(rows)))
    return np.stack(seen)[order]


@settings(deadline=None)
@given(pairs(), cells, families, st.sampled_from([None, 1, 2, 4]))
def test_blocks_say_what_the_ranges_say(batch_pairs, wanted, family, window):
    layout = PackedCollate(wanted)(batch_pairs, family).layout
    visible = visibility(layout)
    near = visible if window is None else visible & distances(layout, window)
    assert (seen_in_blocks(layout, np.arange(len(visible)), window) == near).all()
    assert layout.pairs == visible.sum()


@settings(deadline=None)
@given(pairs(), cells, families, st.sampled_from([None, 1, 2, 4]))
def test_the_rows_that_predict_see_what_they_saw(batch_pairs, wanted, family, window):
    """The tail of a row: no row twice, none that predicts is missing, and none that does not."""
    batch = PackedCollate(wanted)(batch_pairs, family)
    tail, visible = batch.tail, visibility(batch.layout)
    if tail is None:
        assert batch.predicts.unique().tolist() == list(range(batch.llm_tokens))
        return
    assert torch.equal(tail.rows, batch.predicts.unique()), (
        "a prefix predicts with its last row, a branch with every one"
    )
    assert torch.equal(tail.rows[tail.predicts], batch.predicts)
    assert torch.cat([tail.rest, tail.rows])[tail.order].tolist() == list(range(batch.llm_tokens))
    rows = tail.rows.numpy()
    near = visible if window is None else visible & distances(batch.layout, window)
    assert (seen_in_blocks(tail.layout, rows, window) == near[rows]).all()
    assert (seen_by_calls(tail.layout, rows) == visible[rows]).all()
    assert tail.layout.pairs == visible[rows].sum()


def test_a_tail_of_rows_in_the_middle_goes_on_to_the_end_of_their_segment():
    layout = Layout.of([((0, 5), ()), ((5, 9), ((0, 5),)), ((9, 11), ((0, 5),))])
    assert layout.only(np.array([6])).queries == ((6, 9),)
    assert layout.only(np.array([4, 6])).queries == ((4, 5), (6, 9))


def test_layouts_without_tokens_are_refused():
    for segments in ([], [((0, 0), ())], [((0, 2), ()), ((2, 2), ((0, 2),))]):
        with pytest.raises(ValueError, match="at least one segment"):
            Layout.of(segments)


def test_costs_are_the_tokens_of_the_row(family, make_pairs):
    from svco.batches.encode import Encode

    made = make_pairs("train", 0, 6)
    encoded = [family.encode_text(pair.text, ((48, 48), (48, 48))) for pair in made]
    lengths = Lengths(
        np.array([[len(p) for p in e.prefixes] for e in encoded]),
        np.array([[len(r) for r in e.responses] for e in encoded]),
        np.zeros(6, int),
        np.full(6, ""),
    )
    for wanted in (ALL_CELLS, frozenset({(0, 0), (1, 2)}), frozenset({(0, 1)}), frozenset({(0, 0), (1, CORRUPT)})):
        collate = PackedCollate(wanted)
        batch, _ = Encode(family, collate, Corruptions.of(wanted, CorruptConfig()))(made)
        assert collate.costs(lengths).sum() == batch.llm_tokens


def test_imbalance_is_told(family):
    assert imbalance((((0,), (1,)), ((2,), (3,))), [4, 4, 4, 4]) == 0
    assert imbalance((((0,),), ((1,),)), [6, 2]) == 0.5
    costs = np.random.default_rng(0).integers(1500, 2500, 64).tolist()
    assert imbalance(divide(costs, 4, 16384), costs) < 0.02
