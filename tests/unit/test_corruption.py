"""Corrupted images: pure in pair, side and configuration, as large as the image, and distributed as published."""

import math

import numpy as np
import pytest
from PIL import Image

from svco.basics.errors import UserError
from svco.basics.views import ALL_CELLS, CORRUPT, cells_to_evaluate
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.data.corruption import Corruptions, corrupt, crop_box, identity, kept_signal
from svco.objectives.table import make_objective
from svco.recipe.config import CorruptConfig, ObjectiveConfig
from svco.recipe.read import load_recipe

KINDS = ("crop", "noise", "grey", "zero")
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
"""Of CLIP's image processor."""


def picture(size=(60, 44)):
    """Every pixel of its own colour, smooth: a part of it is told by its mean."""
    x, y = np.meshgrid(np.linspace(40, 210, size[0]), np.linspace(40, 210, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], -1).astype(np.uint8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(60, 44), (1, 1), (3, 200), (700, 400)])
def test_pure_and_of_the_same_size(kind, size):
    image, config = picture(size), CorruptConfig(kind)
    before = image.tobytes()
    made = corrupt(image, "pair-7", 1, config)
    assert (made.size, made.mode) == (size, "RGB")
    assert made.tobytes() == corrupt(image.copy(), "pair-7", 1, config).tobytes()
    assert image.tobytes() == before, "the image itself is left alone"


@pytest.mark.parametrize("kind", ["crop", "noise"])
def test_key_side_seed_and_settings_each_draw_anew(kind):
    image = picture()
    settings = {"crop": {"scale": (0.3, 0.4)}, "noise": {"step": 700}}[kind]
    made = [
        corrupt(image, key, side, CorruptConfig(kind, **more)).tobytes()
        for key, side, more in (("a", 0, {}), ("b", 0, {}), ("a", 1, {}), ("a", 0, {"seed": 1}), ("a", 0, settings))
    ]
    assert len(set(made)) == len(made)
    others = {"crop": {"step": 7}, "noise": {"scale": (0.5, 0.6)}}[kind]
    assert corrupt(image, "a", 0, CorruptConfig(kind, **others)).tobytes() == made[0], "keys of other kinds do nothing"


def test_flat_kinds_are_flat():
    assert set(corrupt(picture(), "a", 0, CorruptConfig("grey")).tobytes()) == {128}
    assert set(corrupt(picture(), "a", 0, CorruptConfig("zero")).tobytes()) == {0}


def test_crops_are_torchvisions():
    """Area uniform in the scale, aspect ratio log-uniform between 3/4 and 4/3, every place as likely."""
    rng, size = np.random.default_rng(0), (2000, 1000)
    boxes = np.array([crop_box(size, (0.01, 0.2), rng) for _ in range(4000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and (boxes[:, 2] <= 2000).all() and (boxes[:, 3] <= 1000).all()
    share, ratio = width * height / 2e6, np.log(width / height)
    assert 0.0099 < share.min() < 0.012 and 0.195 < share.max() < 0.201
    for values, low, high in ((share, 0.01, 0.2), (ratio, math.log(3 / 4), math.log(4 / 3))):
        # Uniform: mean, and standard deviation of (high − low) / sqrt(12).
        assert values.mean() == pytest.approx((low + high) / 2, abs=3 * (high - low) / math.sqrt(12 * 4000))
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03)
    place = boxes[:, 0] / (2000 - width)
    assert place.mean() == pytest.approx(0.5, abs=0.02) and place.std() == pytest.approx(12**-0.5, rel=0.03)


def test_a_crop_shows_a_part_enlarged():
    made = np.asarray(corrupt(picture((200, 200)), "a", 0, CorruptConfig(scale=(0.04, 0.04))), float)
    assert np.ptp(made[..., 0]) < 0.3 * 170, "a fifth of the width has a fifth of the colours"
    assert np.ptp(made[..., 0]) > 0.1 * 170


def test_noise_is_the_published_diffusion():
    """ᾱ by its definition, one product after another; mean sqrt(ᾱ) x and variance 1 − ᾱ on CLIP's scale, pixels independent."""
    product = 1.0
    for step in range(501):
        place = -6 + 12 * step / 999
        product *= 1 - ((0.5e-2 - 1e-5) / (1 + math.exp(-place)) + 1e-5)
    assert kept_signal(500) == pytest.approx(product, rel=1e-9)
    assert kept_signal(500) == pytest.approx(0.7448, abs=1e-4)
    level = np.array([126, 121, 113])
    image = Image.fromarray(np.broadcast_to(level, (300, 300, 3)).astype(np.uint8))
    for step, tolerance in ((500, 0.01), (300, 0.01)):
        made = corrupt(image, "a", 0, CorruptConfig("noise", step=step))
        normal = (np.asarray(made, float) / 255 - MEAN) / STD
        kept = kept_signal(step)
        wanted = math.sqrt(kept) * (level / 255 - MEAN) / STD
        assert normal.mean((0, 1)) == pytest.approx(wanted, abs=tolerance)
        assert normal.var((0, 1)) == pytest.approx([1 - kept] * 3, rel=0.02)
        rest = normal - normal.mean((0, 1))
        assert abs((rest[:, 1:] * rest[:, :-1]).mean()) < 0.01
        assert abs((rest[..., 0] * rest[..., 1]).mean()) < 0.01


def test_noise_survives_the_towers_resizing():
    """A large picture's noise is drawn on a coarser grid: averaged down to 336 pixels it still has its strength."""
    grey = Image.new("RGB", (1344, 1344), (123, 117, 104))
    small = corrupt(grey, "a", 0, CorruptConfig("noise")).resize((336, 336), Image.Resampling.BOX)
    spread = ((np.asarray(small, float) / 255 - MEAN) / STD).var((0, 1))
    assert spread == pytest.approx([1 - kept_signal(500)] * 3, rel=0.03)


def test_only_what_the_cells_read_is_made(family, make_pairs, monkeypatch):
    assert Corruptions.of(ALL_CELLS, CorruptConfig())((1, 2), "key") == (1, 2)
    first = Corruptions.of({(0, 0), (0, CORRUPT)}, CorruptConfig("zero"))
    images = first((picture(), picture()), "key")
    assert [image is None for image in images] == [False, False, True, False, True]
    cells = make_objective(ObjectiveConfig(name="mdpo", sides="both")).cells
    pairs = make_pairs("val", 0, 2)
    batch, bad = Encode(family, PackedCollate(cells), Corruptions.of(cells, CorruptConfig("noise")))([*pairs, pairs[0]])
    assert not bad and batch.view_count == 4
    pixels = batch.pixels.view(3, 4, *batch.pixels.shape[1:])
    assert (pixels[0] == pixels[2]).all(), "the same pair, wherever it stands"
    again, _ = Encode(family, PackedCollate(cells), Corruptions.of(cells, CorruptConfig("noise", seed=1)))(pairs)
    changed = (again.pixels.view(2, 4, -1) != pixels[:2].reshape(2, 4, -1)).any(-1)
    assert changed.tolist() == [[False, False, True, True]] * 2, "images 0 and 1, then the two corrupted"
    filler, _ = Encode(family, PackedCollate(cells), Corruptions.of(cells, CorruptConfig()))([])
    assert len(filler.pixels) == 4, "a filler shows as many images"


def test_fingerprint_tells_what_matters():
    cells = cells_to_evaluate({(0, CORRUPT)})
    assert len(cells) == 8
    assert Corruptions.of(cells_to_evaluate({(0, 0)}), CorruptConfig()).fingerprint == "none"
    told = [Corruptions.of(cells, CorruptConfig(kind)).fingerprint for kind in KINDS]
    assert len({*told, "none"}) == 5
    assert Corruptions.of(cells, CorruptConfig("grey", seed=3, step=9)).fingerprint == told[2]
    assert identity(CorruptConfig("noise", seed=3)) != identity(CorruptConfig("noise"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("corrupt.kind=blur", "crop, noise, grey, zero"),
        ("corrupt.step=1000", "at most 999"),
        ("corrupt.scale=[0.2, 0.1]", "comes first"),
        ("corrupt.scale=0", "above 0"),
        ("corrupt.scale=[0.5, 1.5]", "at most 1"),
    ],
)
def test_settings_no_image_can_have_are_refused(override, told):
    with pytest.raises(UserError, match=told):
        load_recipe(None, [override])
