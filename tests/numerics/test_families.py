"""Every family: packed scores and gradients against separate forward passes of the Hugging Face model, the ids against the
template's own rendering, the sizes of the published checkpoints, and what is refused."""

import io
import json
from dataclasses import replace

import numpy as np
import oracle
import pytest
import tiny_families
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.image_utils import load_image
from transformers.models.qwen3_5 import modeling_qwen3_5

from svco.basics.errors import BadSample, UserError
from svco.basics.views import CORRUPT, cells_to_evaluate
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.data.corruption import Corruptions, corrupt
from svco.data.pairs import Pair, PairText
from svco.data.pictures import decode_image
from svco.families import architecture, load_family
from svco.families.published import published_config
from svco.model.load import load_tuned
from svco.model.recompute import set_recompute
from svco.objectives.reference import choose_reference
from svco.objectives.table import make_objective
from svco.recipe.config import CorruptConfig
from svco.recipe.read import load_recipe

SIZES = (((48, 48), (40, 90)), ((84, 30), (28, 28)))
"""(width, height) of the images of two pairs: squares, tall and wide ones."""
NOISE = CorruptConfig("noise")
QUERY = "What colour is the circle?"
RESPONSES = (("The circle is red.", "I can see that it is blue."), ("Two.", "There are three squares on the left."))
GOLDEN = {
    "llava15": ("<s>USER: {image}What colour is the circle? ASSISTANT:", "<image>\n", " The circle is red. </s>"),
    "interleave": (
        "<s><|im_start|>user {image}\nWhat colour is the circle?<|im_end|><|im_start|>assistant\n",
        "<image>",
        "The circle is red.<|im_end|>",
    ),
    "next_mistral": ("<s>[INST] {image}What colour is the circle? [/INST]", "<image>\n", " The circle is red.</s>"),
    "next_yi": (
        "<s><|im_start|>user\n{image}What colour is the circle?<|im_end|><|im_start|>assistant\n",
        "<image>\n",
        "The circle is red.<|im_end|>",
    ),
    "qwen25_vl": (
        "<s><|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{image}What colour is the circle?"
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "The circle is red.<|im_end|>",
    ),
    "qwen3_vl": (
        "<s><|im_start|>user\n{image}What colour is the circle?<|im_end|>\n<|im_start|>assistant\n",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "The circle is red.<|im_end|>",
    ),
    "internvl": (
        "<s><|im_start|>user\n{image}What colour is the circle?<|im_end|>\n<|im_start|>assistant\n",
        "<img><IMG_CONTEXT></img>\n",
        "The circle is red.<|im_end|>",
    ),
    "smolvlm": (
        "<|im_start|>User:{image}What colour is the circle?<end_of_utterance>\nAssistant:",
        "<fake_token_around_image><global-img><image><fake_token_around_image>",
        " The circle is red.<end_of_utterance>",
    ),
    "gemma3": (
        "<s><start_of_turn>user\n{image}What colour is the circle?<end_of_turn>\n<start_of_turn>model\n",
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        "The circle is red.<end_of_turn>",
    ),
    "qwen35": (
        "<s><|im_start|>user\n{image}What colour is the circle?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "The circle is red.<|im_end|>",
    ),
}
GOLDEN["onevision"] = GOLDEN["interleave"]
"""Prompt with its place for the image, the image's part of it, and the first response, as the releases' templates have them."""
BLIND = {"smolvlm": " "}
"""What stands in the image's place without one, if anything."""
ASKED = {"internvl": {"crop_to_patches": True}, "smolvlm": {"return_row_col_info": True}}
"""What a family's whole processor asks of its image processor."""


def pairs():
    rng = np.random.default_rng(0)

    def jpeg(size):
        stream = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize(size, Image.BICUBIC).save(stream, "JPEG", quality=95)
        return stream.getvalue()

    return [
        Pair(PairText(key=f"pair-{n}", query=QUERY, responses=responses), tuple(jpeg(size) for size in sizes))
        for n, (sizes, responses) in enumerate(zip(SIZES, RESPONSES, strict=True))
    ]


@pytest.fixture(autouse=True)
def exact_rule(monkeypatch):
    """Qwen3.5's rule in float64 for the product, which calls transformers' own: that computes in float32 whatever it is given."""
    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", oracle.exact_qwen35().chunk_rule)


@pytest.fixture(scope="module", params=tiny_families.BASES)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny_families.make_base(request.param, folder / "base")
    oracle.make_adapter(folder / "base", folder / "adapter")
    return request.param, folder


def pictured(model, folder, image):
    """(keyword arguments of the model's forward, number of features, its rows and columns of tiles) of one image."""
    asked = ASKED.get(model.config.model_type, {})
    made = dict(AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="pt", **asked))
    for count in ("batch_num_images", "num_patches", "num_crops"):
        made.pop(count, None)
    grid = [made.pop(name, [[0]])[0][0] for name in ("rows", "cols")]
    made["pixel_values"] = made["pixel_values"].to(model.dtype)
    return made, len(torch.cat(list(model.model.get_image_features(**made).pooler_output))), grid


def image_words(shown, word, features, grid):
    """An image's part of a prompt: ``shown`` with a ``word`` a feature, each tile of a ``grid`` (rows, columns) in its place."""
    rows, columns = grid
    each = word * (features // (rows * columns + 1))
    tiles = [[f"<fake_token_around_image><row_{r + 1}_col_{c + 1}>{each}" for c in range(columns)] for r in range(rows)]
    return "".join("".join(row) + "\n" for row in tiles) + ("\n" if rows else "") + shown.replace(word, each)


def plain_logps(model, name, folder, made):
    """(2, 4) log-probabilities of one pair from eight forward passes of the whole model over whole sequences."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    placeholder = model.config.image_token_id
    word = tokenizer.decode([placeholder])
    prompt, shown, _ = GOLDEN[name]
    rows = []
    for side in (0, 1):
        cells = []
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in made.images]
        corrupted = corrupt(images[side], made.text.key, side, NOISE)
        for image in (images[side], None, images[1 - side], corrupted):
            extra, placed = {}, BLIND.get(name, "")
            if image is not None:
                extra, *found = pictured(model, folder, image)
                placed = image_words(shown, word, *found)
            text = prompt.format(image=placed)
            if image is None and name in ("interleave", "onevision"):
                assert "user \nWhat" in text
            response = GOLDEN[name][2].replace(RESPONSES[0][0], made.text.responses[side])
            start = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            ids = tokenizer(text + response, add_special_tokens=False, return_tensors="pt")["input_ids"]
            if "image_grid_thw" in extra:
                extra["mm_token_type_ids"] = (ids == placeholder).int()
            if name == "gemma3":
                extra["token_type_ids"] = (ids == placeholder).int()
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0].double()
            cells.append(logits.log_softmax(-1)[start - 1 : -1].gather(1, ids[0, start:, None]).sum())
        rows.append(torch.stack(cells))
    return torch.stack(rows)


def expected(name, folder, tune):
    """(policy, reference, gradients by name) by plain transformers and peft in float64."""
    model = oracle.load_model(folder / "base").eval()
    if tune == "lora":
        wrapped = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True).double().eval()
        with torch.no_grad(), wrapped.disable_adapter():
            reference = torch.stack([plain_logps(model, name, folder / "base", pair) for pair in pairs()])
    else:
        # A model of its own: an adapter may change the classes of the one that it takes apart.
        with torch.device("meta"):
            outline = AutoModelForImageTextToText.from_config(model.config)
        parts = architecture(model.config.model_type).parts(outline)
        parts.tower.requires_grad_(False)
        for projection in parts.projection:
            projection.requires_grad_(True)
        for theirs, ours in zip(model.parameters(), outline.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        with torch.no_grad():
            reference = torch.stack([plain_logps(model, name, folder / "base", pair) for pair in pairs()])
    policy = torch.stack([plain_logps(model, name, folder / "base", pair) for pair in pairs()])
    loss = sum(oracle.svco(p[:, :3], r[:, :3], reject=0.3) for p, r in zip(policy, reference)) / len(SIZES)
    loss.backward()
    return policy.detach(), reference, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def product(folder, tune, *more, dtype=torch.float64, change=lambda tuned: None):
    """The same by the product; ``change`` is made to the loaded model, with its family, before anything is encoded."""
    start = f"lora.init_from={folder / 'adapter'}" if tune == "lora" else "optim.lr=1e-6"
    overrides = [f"model.base={folder / 'base'}", f"model.tune={tune}", "lora.rank=4", "lora.alpha=8", start]
    config = load_recipe(None, [*overrides, "objective.beta_reject=0.3", *more])
    family = load_family(config.model.base, 128)
    objective = make_objective(config.objective)
    tuned = load_tuned(config, family, dtype, choose_reference("auto", tune, objective), torch.device("cpu"))
    oracle.exact_norms(tuned.scorer.to(dtype))
    change(tuned)
    cells = cells_to_evaluate({(0, CORRUPT)})
    batch, bad = Encode(family, PackedCollate(cells), Corruptions.of(cells, NOISE))(pairs())
    assert not bad
    policy, reference = tuned.scorer(batch)
    if tune == "lora":  # what a cached reference keeps
        with torch.no_grad(), tuned.scorer.as_reference():
            assert relative(tuned.scorer(batch)[0].logps, reference.logps) <= 1e-12
    objective(policy, reference)[0].mean().backward()
    return policy.logps.detach(), reference.logps, {name: p.grad for name, p in tuned.trainable.items()}


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_packed_equals_separate_forwards(base, tune):
    name, folder = base
    policy, reference, gradients = product(folder, tune)
    wanted_policy, wanted_reference, wanted = expected(name, folder, tune)
    # Qwen's tower rotates in float32 whatever its dtype.
    tolerance = 1e-9
    assert relative(policy, wanted_policy) <= tolerance
    assert relative(reference, wanted_reference) <= tolerance
    assert (relative(policy, wanted_reference) > 1e-3) is (tune == "lora"), "the adapter must do something"
    wanted = {name: gradient for name, gradient in wanted.items() if gradient.norm() > 0}
    ours = {name: gradient for name, gradient in gradients.items() if gradient is not None and gradient.norm() > 0}
    assert ours.keys() == wanted.keys()
    assert len(wanted) > 20
    for name in wanted:
        assert relative(ours[name], wanted[name]) <= tolerance, name


def test_negative_control_position_axes(tmp_path):
    """Counting positions on all axes alike is not what Qwen2.5-VL does, and the comparison would see it."""
    tiny_families.make_base("qwen25_vl", tmp_path / "base")
    oracle.make_adapter(tmp_path / "base", tmp_path / "adapter")
    right, _, _ = product(tmp_path, "lora")

    def alike(tuned):
        tuned.scorer.family.positions = lambda prefix, size: np.tile(np.arange(len(prefix)), (3, 1))

    counted, _, _ = product(tmp_path, "lora", change=alike)
    assert relative(counted, right) > 1e-3


def test_negative_controls_one_way_pictures_windows_and_angles(tmp_path):
    """Gemma 3 with pictures that are causal as text is, without windows, and with the global layers' angles everywhere."""
    tiny_families.make_base("gemma3", tmp_path / "base")
    oracle.make_adapter(tmp_path / "base", tmp_path / "adapter")

    def one_way(tuned):
        tuned.scorer.family.two_way_images = False

    def no_window(tuned):
        for layer in tuned.policy.model.language_model.layers:
            layer.self_attn.sliding_window = None

    def one_angle(tuned):
        tuned.scorer._parts = replace(tuned.scorer._parts, layer_types=("full_attention",) * 3)

    right = product(tmp_path, "lora")[0]
    for change in (one_way, no_window, one_angle):
        assert relative(product(tmp_path, "lora", change=change)[0], right) > 1e-3


def test_features_added_behind_layers(tmp_path):
    """DeepStack (Qwen3-VL): with every merger trained beside the adapters, both streams add their own features; recomputed or
    not; and with the controls that would fail."""
    tiny_families.make_base("qwen3_vl", tmp_path / "base")
    mergers = ["merger", "deepstack_merger_list.0", "deepstack_merger_list.1"]
    oracle.make_adapter(tmp_path / "base", tmp_path / "adapter", whole=[f"model.visual.{name}" for name in mergers])
    trained = "model.train_projector=true"
    wanted_policy, wanted_reference, wanted = expected("qwen3_vl", tmp_path, "lora")
    assert all(any(f"{name}.modules_to_save" in learns for learns in wanted) for name in mergers)
    for recomputed in (0, 3):
        policy, reference, gradients = product(
            tmp_path, "lora", trained, change=lambda tuned, n=recomputed: set_recompute(tuned.scorer.layers, n)
        )
        assert relative(policy, wanted_policy) <= 1e-9 and relative(reference, wanted_reference) <= 1e-9
        assert gradients.keys() == wanted.keys()
        assert all(relative(gradients[name], wanted[name]) <= 1e-9 for name in wanted)

    def left_out(tuned):
        made = tuned.scorer.family.project
        tuned.scorer.family.project = lambda *arguments: made(*arguments)[:1]

    assert relative(product(tmp_path, "lora", trained, change=left_out)[0], wanted_policy) > 1e-3

    def grown(tuned):
        with torch.no_grad():
            tuned.policy.model.visual.deepstack_merger_list[1].linear_fc2.weight.mul_(2)

    ours, frozen, _ = product(tmp_path, "full", change=grown)
    assert relative(frozen, wanted_reference) <= 1e-9, "the frozen copy adds its own"
    assert relative(ours, frozen) > 1e-3


def test_golden_ids_and_features(base):
    """Prompt and response as the template's text, a placeholder a feature of each image, positions as the model's own."""
    name, folder = base
    family = load_family(str(folder / "base"), 128)
    model = AutoModelForImageTextToText.from_pretrained(folder / "base").eval()
    prompt, shown, response = GOLDEN[name]
    for made, sizes in zip(pairs(), SIZES):
        encoded = family.encode_text(made.text, sizes)
        assert family.tokenizer.decode(encoded.prefixes[2]) == prompt.format(image=BLIND.get(name, ""))
        for side in (0, 1):
            told = response.replace(RESPONSES[0][0], made.text.responses[side])
            assert family.tokenizer.decode(encoded.responses[side]) == told
            image = Image.open(io.BytesIO(made.images[side])).convert("RGB")
            extra, features, grid = pictured(model, folder / "base", image)
            assert family.features_of(image.size) == features
            word = family.tokenizer.decode([family.image_token_id])
            text = prompt.format(image=image_words(shown, word, features, grid))
            assert family.tokenizer.decode(encoded.prefixes[side]) == text
            assert encoded.prefixes[side].tolist() == family.tokenizer(text, add_special_tokens=False)["input_ids"]
            if encoded.positions[side].shape[0] == 3:
                ids = torch.from_numpy(encoded.prefixes[side])[None]
                kinds = (ids == family.image_token_id).int()
                positions, _ = model.model.get_rope_index(ids, kinds, extra["image_grid_thw"])
                assert np.array_equal(encoded.positions[side], positions[:, 0].numpy())


def drawn_files(count):
    """Files as they come: sizes from a few pixels to long strips, colours and grey, turned by EXIF, several formats."""
    rng = np.random.default_rng(7)
    for number in range(count):
        width, height = np.exp(rng.uniform(np.log(9), np.log(400), 2)).astype(int).tolist()
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        form = ("JPEG", "PNG", "WEBP")[number % 3]
        stream = io.BytesIO()
        small.convert(("RGB", "RGB", "RGB", "L")[number % 4]).save(stream, form, exif=exif.tobytes())
        yield stream.getvalue()


def test_pixels_are_those_of_transformers_own_loader_and_processor(base, tmp_path):
    """``load_image`` is what every pipeline and processor of transformers opens a file with."""
    family = load_family(str(base[1] / "base"), 128)
    processor = AutoImageProcessor.from_pretrained(base[1] / "base", backend="pil")
    files = list(drawn_files(40))
    images = [decode_image(data, "x") for data in files]
    together, grids = (made := family.pixels(images)).pixels, made.grids
    if family.name in ASKED:
        assert [family.features_of(image.size) for image in images] == [4 * tiles for (tiles,) in grids]
    theirs = []
    for data in files:
        (tmp_path / "picture").write_bytes(data)
        asked = ASKED.get(family.name, {})
        made = processor(load_image(str(tmp_path / "picture")), return_tensors="pt", **asked)["pixel_values"]
        theirs.append(made[0] if made.ndim == 5 else made)
    assert torch.equal(together, torch.cat(theirs))
    unturned = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    turned = family.pixels(unturned).pixels
    assert turned.shape != together.shape or not torch.equal(together, turned), "the control"


def test_a_filler_runs_every_module(base):
    _, folder = base
    family = load_family(str(folder / "base"), 128)
    batch, _ = Encode(family, PackedCollate())([])
    assert len(batch.grids) == 2 and batch.weight.tolist() == [0.0]
    assert len(batch.image_slots) == 2 * family.features_of(family.filler_image().size)


def test_features_of_true_shapes():
    """What the releases make of images, by numbers known from elsewhere: 576 and 729 features, of a 672-pixel square LLaVA-NeXT's
    2,928, a Qwen2.5-VL feature for 28 × 28 pixels."""

    def features(hub_id, size):
        config = published_config(hub_id)
        return architecture(config.model_type).features(config, size)

    assert features("llava-hf/llava-1.5-13b-hf", (640, 480)) == 576
    assert features("llava-hf/llava-interleave-qwen-7b-hf", (640, 480)) == 729
    assert features("llava-hf/llava-v1.6-34b-hf", (672, 672)) == 576 + 48 * 49 == 2928
    assert features("Qwen/Qwen2.5-VL-7B-Instruct", (336, 336)) == 144


@pytest.mark.parametrize(
    ("hub_id", "count", "tolerance"),
    [
        ("llava-hf/llava-1.5-7b-hf", 7_063_427_072, 0),
        ("llava-hf/llava-v1.6-mistral-7b-hf", 7_566_747_648, 0),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976, 0),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656, 0),
        ("Qwen/Qwen3.5-4B", 4_539_265_536, 0),
        ("Qwen/Qwen3.5-9B", 9_409_813_744, 0),
        ("Qwen/Qwen3-VL-2B-Instruct", 2_127_532_032, 0),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808, 0),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696, 0),
        ("Qwen/Qwen3-VL-32B-Instruct", 33_357_390_064, 0),
        ("OpenGVLab/InternVL3-1B-hf", 938_193_024, 0),
        ("OpenGVLab/InternVL3-8B-hf", 7_944_373_760, 0),
        ("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", 256_484_928, 0),
        ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", 507_482_304, 0),
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", 2_246_784_880, 0),
        ("OpenGVLab/InternVL3_5-1B-HF", 1.06e9, 0.005e9),
        ("OpenGVLab/InternVL3_5-8B-HF", 8.53e9, 0.005e9),
        ("HuggingFaceM4/Idefics3-8B-Llama3", 8.46e9, 0.005e9),
        ("google/gemma-3-4b-it", 4_300_079_472, 0),
        ("google/gemma-3-12b-it", 12_187_325_040, 0),
        ("google/gemma-3-27b-it", 27_432_406_640, 0),
        ("llava-hf/llava-1.5-13b-hf", 13.4e9, 0.05e9),
        ("llava-hf/llava-v1.6-vicuna-13b-hf", 13.4e9, 0.05e9),
        ("llava-hf/llava-v1.6-34b-hf", 34.8e9, 0.05e9),
        ("llava-hf/llava-interleave-qwen-7b-hf", 8.1e9, 0.05e9),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.0e9, 0.05e9),
    ],
)
def test_published_sizes(hub_id, count, tolerance):
    """Parameters of the true architecture on the meta device: the release's own number, or what it is rounded to. Each is
    of one of the parts that svco runs. Qwen3.5-9B's
    index says 19,306,216,416 bytes: these and an extra layer's 243,290,624 in two bytes each, and two more for the 3,840 of
    ``A_log`` and the DeltaNets' norms."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(published_config(hub_id))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(count, abs=tolerance)
    parts = architecture(model.config.model_type).parts(model)
    run = (parts.tower, parts.projector, parts.embedding, parts.layers, parts.norm, parts.head)
    assert sum({id(p): p.numel() for part in run for p in part.parameters()}.values()) == sum(
        p.numel() for p in model.parameters()
    )


REFUSALS = [
    ({"model_type": "paligemma"}, "both directions"),
    ({"model_type": "qwen3_vl_moe"}, "experts"),
    ({"model_type": "mllama"}, "cross-attention"),
    ({"model_type": "qwen3_5_moe"}, "experts of its own"),
    ({"model_type": "qwen3_next"}, "other projections than Qwen3.5's"),
    ({"model_type": "idefics2"}, "does not support yet"),
    ({"model_type": "llava", "text_config": {"model_type": "gemma2"}}, "language model of type 'gemma2'"),
    (
        {"model_type": "llava", "text_config": {"model_type": "qwen2", "final_logit_softcapping": 30.0}},
        "caps its logits .final_logit_softcapping = 30.0",
    ),
]


@pytest.mark.parametrize(("config", "words"), REFUSALS)
def test_what_cannot_be_packed_is_refused_by_name(config, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=words) as caught:
        load_family(str(tmp_path), 128)
    assert "llava_onevision" in str(caught.value), "and what is supported is listed"


def test_an_image_no_model_takes_is_a_bad_sample(tmp_path):
    tiny_families.make_base("qwen25_vl", tmp_path)
    family = load_family(str(tmp_path), 128)
    text = PairText(key="thin", query=QUERY, responses=RESPONSES[0])
    with pytest.raises(BadSample, match="'thin'.*3000 × 10 pixels.*aspect ratio"):
        family.encode_text(text, ((3000, 10), (48, 48)))
    with pytest.raises(BadSample, match="no size"):
        family.encode_text(text, ((48, 48), (0, 0)))


def test_paper_compat_cuts_as_the_authors_do(tmp_path):
    """The placeholder counts as a token and every view has a budget of its own; else one budget for all."""
    tiny_families.make_base("llava15", tmp_path)
    text = PairText(key="k", query=QUERY, responses=("The circle is red. " * 9, "Blue."))
    ours, theirs = (load_family(str(tmp_path), 30, compat).encode_text(text, SIZES[0]) for compat in (False, True))
    blind = len(ours.prefixes[2])
    shown = len(ours.prefixes[0]) - 16 + 1  # 16 features, one placeholder
    assert [len(theirs.response(0, c)) for c in (0, 1, 2)] == [30 - shown, 30 - shown, 30 - blind]
    assert len({len(ours.response(0, c)) for c in (0, 1, 2)}) == 1, "the same tokens under match and blind"
    assert len(ours.response(0, 0)) == 30 - (shown - 1)
