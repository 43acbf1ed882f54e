"""The recipe: frozen dataclasses, filled default < recipe YAML < command line.

Every section is one dataclass and every field carries a docstring; ``svco train --help`` prints them
from here. The key of a field is ``section.field``. :mod:`svco.recipe.read` reads files and overrides into a ``Config``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What the weights of a model may be computed in; ``auto``: as the device allows."""
Quantise = Literal["none", "nf4"]
CorruptKind = Literal["crop", "noise", "grey", "zero"]
"""How an image is corrupted."""
AllowOverlap = Literal["none", "keys", "all"]


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and what its randomness is."""

    name: str = ""
    """Folder of the run under ``run.root``; empty: the recipe's name and the time it started."""
    root: str = "runs"
    """Folder that holds all runs; on a cluster it must be shared by all nodes."""
    seed: int = 42
    """Seeds the order of the pairs, LoRA's initial values and dropout."""
    resume: str = "none"
    """``none``: a new run (its folder must be new). ``auto``: continue ``run.name`` from its newest valid checkpoint, or
    start it when it has none. A path: continue from that checkpoint."""
    allow_change: tuple[str, ...] = ()
    """Keys that may differ from those of the run that is resumed: deliberate changes, e.g. ``[objective.beta, optim.lr]``."""
    swap: str = ""
    """Folder on each node's own disk for what the DeepSpeed config offloads to NVMe (its ``nvme_path: "auto"``). A run uses a
    subfolder of its name and empties it when it ends."""
    log_every: int = 1
    """Steps between two lines of metrics.jsonl."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where numbers, pictures and the recipe go besides the run's own files: ``tensorboard``, ``wandb``, ``trackio``, any of
    them; empty: nowhere. One that is not installed is said and left out, and none but TensorBoard's files, for which the disk
    must have room, can end a run. All stay on this machine unless the packages' own environment variables (``WANDB_MODE``,
    ``TRACKIO_SPACE_ID``) say otherwise."""
    time_limit: str = ""
    """How long the process may run, its start included: ``3:55:00``, ``1-12:00:00``, ``45m``, ``2h``, or seconds. It stops
    early enough to save, with exit code 75, and run.resume=auto continues it; empty: no limit."""
    timeout_minutes: float = 30.0
    """How long a rank waits for the others before it gives up: longer than the slowest save, shorter than one likes to pay for
    when a rank has died unnoticed. DeepSpeed's own groups (gathers of weights) keep PyTorch's: 10 minutes on GPUs."""


@dataclass(frozen=True)
class ModelConfig:
    """The model that is tuned."""

    base: str = "data_shards/tiny_llava"
    """Folder or hub id of the base model, in Hugging Face layout."""
    dtype: Dtype = "auto"
    """``float32``, ``bfloat16`` or ``float16``; ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    quantise: Quantise = "none"
    """``nf4``: the decoder layers' matrices are held in 4 bits (bitsandbytes); all else, adapters too, stays in ``dtype``, and so
    is what is computed. For ``tune: lora``, without DeepSpeed or under ZeRO-1 and -2."""
    attention: Literal["auto", "flash", "varlen", "sdpa"] = "auto"
    """Kernel of the language model's attention: ``flash`` (flash-attn), ``varlen`` (torch's own), ``sdpa`` (any device and
    dtype); ``auto``: the first of these that can run here."""
    compile: bool = False
    """Fuse the pointwise operations of the decoder layers with ``torch.compile``, for policy and reference alike; the first
    steps compile. Meant for GPUs, and not timed on one yet. The attention kernel stays as it is."""
    tune: Literal["lora", "full"] = "lora"
    """``lora``: low-rank adapters on the language model; the reference is the same model with the adapters off.
    ``full``: the whole language model and the projector; the reference is a frozen copy. The vision tower never changes."""
    paper_compat: bool = False
    """Do as the authors' trainer does where svco differs: ``dtype: auto`` is float16 on a GPU, and text is cut with the image
    placeholder counted as one token and a budget of its own for every view, so that match and blind may score different
    lengths. Where responses end is alike: with the end-of-sequence token for LLaVA-1.5, with the template's own end of a turn for
    LLaVA-Interleave. What still differs from the paper's runs is printed when a run starts."""
    train_projector: bool = False
    """With ``tune: lora``: also train the projector in full. (Full fine-tuning always trains it.)"""
    reference: Literal["auto", "lockstep", "frozen-copy", "cached", "none"] = "auto"
    """Where the reference's log-probs come from. ``lockstep`` (LoRA): the policy with its adapters off, beside it;
    ``frozen-copy`` (full): a second model, beside it; ``cached``: computed once and kept in ``run.root``/references;
    ``none``: the objective has none. ``auto``: none where the objective allows it, else lockstep or frozen-copy."""


ALL_LINEAR = "all-linear"  # in lora.targets: every linear layer of the decoder layers


@dataclass(frozen=True)
class LoraConfig:
    """Adapters (``model.tune: lora``)."""

    rank: int = 16
    """Rank r of the adapters."""
    alpha: float = 32.0
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the adapter's input. Above 0 the policy differs from the reference even at step 0."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Names of the language model's linear layers that get adapters; ``all-linear``: every one of its decoder layers', such as
    ``q_proj``, ``down_proj`` or, in Qwen3.5, ``in_proj_qkv``."""
    init_from: str = ""
    """Warm start: a PEFT adapter folder whose values the adapters begin with (same rank, alpha and targets)."""


@dataclass(frozen=True)
class DataConfig:
    """Shards, lengths and bad samples."""

    train: tuple[str, ...] = ("data_shards/train-{000000..000007}.tar",)
    """Training shards: paths, brace patterns, globs, directories, or URLs of these (https://, s3://, gs://, hf://; over http(s)
    no globs and directories). A directory that holds splits (``train-*.tar``, ``val-*.tar``, …), such as ``svco data build``
    writes, means its ``train-*``; for the next two keys its ``val-*`` and ``heldout-*``."""
    validation: tuple[str, ...] = ()
    """Validation shards, scored every ``evaluate.every`` steps; empty: none."""
    heldout: tuple[str, ...] = ()
    """Held-out shards, scored once when the run ends for the before/after table; empty: none."""
    allow_overlap: AllowOverlap = "none"
    """What two of train, validation and held-out may share. ``none``: no key and no picture (by its pixels); ``keys``: keys of
    shards that were numbered alike, but no picture; ``all``: nothing is looked for."""
    max_text_tokens: int = 128
    """Text tokens of a sequence at most (prompt + response; image tokens do not count). Responses are cut to fit, both
    sides and all views alike; a pair whose prompt alone does not fit is bad (``long-query``)."""
    equal_pictures: bool = False
    """Take pairs whose two images show the same. They are no contrast, and bad (``same-images``), unless a study of unfiltered
    pairs wants them."""
    max_bad_fraction: float = 0.01
    """The run stops when more than this share of the pairs seen so far was bad (checked from 200 pairs on, and at the end)."""
    workers: int = 1
    """Loader processes a rank; 0: decode in the training process."""
    block_shards: int = 8
    """Pairs are permuted within blocks of this many (permuted) shards: more is more random, fewer reads more locally."""
    cache_dir: str = ""
    """Where copies of remote shards and indices of read-only folders are kept; empty: ``~/.cache/svco``."""


@dataclass(frozen=True)
class CorruptConfig:
    """How an image is corrupted, for objectives that read the corrupt view (``mdpo``, ``copo``, ``chip``). An image is corrupted
    alike in every epoch and run: it depends on the pair, the side and these keys only."""

    kind: CorruptKind = "crop"
    """``crop``: a random part of it, enlarged to its size (mDPO); ``noise``: diffusion noise (POVID, CHiP); ``grey`` or
    ``zero``: one colour, mid-grey or black."""
    scale: tuple[float, float] = (0.01, 0.2)
    """``crop``: the least and the largest share of the image's area that is kept."""
    step: int = 500
    """``noise``: step of the diffusion, 0 to 999; later is noisier."""
    seed: int = 0
    """``crop`` and ``noise``: another number, another draw."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised (svco/objectives/README.md: every objective with its equation). The defaults are the authors' (arXiv
    2502.13928): S-VCO, every β 0.1, every weight 1. A key that changes nothing of the named objective is refused."""

    name: str = "svco"
    """Name in the table of objectives: ``svco``, ``vco``, ``attend``, ``reject``, ``dpo``, ``mdpo``, ``copo``, ``chip``,
    ``symmpo``, ``ovip``, ``icvco-single``, ``rdpo``, ``sft``."""
    sides: Literal["auto", "first", "both"] = "auto"
    """Sides of a pair that are trained on: ``first`` (side 0), ``both``, or ``auto``: the objective's own, as published."""
    beta: float = 0.1
    """β of every term that has none of its own."""
    beta_text: tuple[float, ...] = ()
    """β of the text term (own response over the other one, under one image): one number or one a side; empty: ``beta``."""
    beta_image: tuple[float, ...] = ()
    """β of the image term (own image over another, for one response): one number or one a side; empty: ``beta``."""
    beta_anchor: tuple[float, ...] = ()
    """β of the anchor (the true response no less likely than under the reference): one number or one a side; empty: ``beta``."""
    beta_attend: tuple[float, ...] = ()
    """β of the attend term (match over blind): one number or one a side; empty: ``beta``."""
    beta_reject: tuple[float, ...] = ()
    """β of the reject term (blind over clash): one number or one a side; empty: ``beta``."""
    weight_text: tuple[float, float] = (1.0, 1.0)
    """Weight of the text term of side 0 and side 1, times the objective's own; one number sets both, 0 drops the term (and its
    cells, where no other term needs them)."""
    weight_image: tuple[float, float] = (1.0, 1.0)
    """Weight of the image term of each side, likewise."""
    weight_anchor: tuple[float, float] = (1.0, 1.0)
    """Weight of the anchor of each side, likewise."""
    weight_attend: tuple[float, float] = (1.0, 1.0)
    """Weight of the attend term of each side, likewise."""
    weight_reject: tuple[float, float] = (1.0, 1.0)
    """Weight of the reject term of each side, likewise."""
    weight_margin: float = 1.0
    """Weight of ``symmpo``'s (m₀ − m₁)², times its own of 0.0001."""
    delta: float = 0.0
    """δ, which an anchor's margin must exceed (nats times β)."""
    image_negative: Literal["corrupt", "clash"] = "corrupt"
    """What ``mdpo``, ``copo`` and ``chip`` compare a side's own image with: ``corrupt``, the same image corrupted, as
    published, or ``clash``, the other side's image."""
    nll: float = 0.0
    """Weight of −log π(match) per token, mean of the sides trained on, added to the objective; 0: not added."""
    length_normalised: bool = False
    """Divide every Δ by the tokens of its response."""
    label_smoothing: float = 0.0
    """Share of pairs taken to be labelled the wrong way round, below 0.5 (cDPO): text, image, attend and reject terms."""
    link: Literal["sigmoid", "ipo"] = "sigmoid"
    """``sigmoid``: −log σ(βh); ``ipo``: (h − 1/(2β))² (arXiv 2310.12036) for text, image, attend and reject terms, whose h is a
    difference of Δ. Anchors keep the sigmoid."""

    def betas_of(self, term: str) -> tuple[float, float]:
        """β of the term of that name, for side 0 and side 1."""
        own = getattr(self, f"beta_{term}", ()) or (self.beta,)
        return own[0], own[-1]

    def weights_of(self, term: str) -> tuple[float, float]:
        """The recipe's weight of the term of that name, for side 0 and side 1."""
        own = getattr(self, f"weight_{term}", 1.0)
        return own if isinstance(own, tuple) else (own, own)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, cosine schedule with linear warm-up, and the sizes of a step."""

    lr: float = 1e-6
    """Peak learning rate."""
    lr_min_ratio: float = 0.0
    """The cosine ends at this share of the peak."""
    warmup_fraction: float = 0.05
    """Share of all steps in which the learning rate rises linearly from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's β₁, β₂."""
    eps: float = 1e-8
    """Adam's ε."""
    weight_decay: float = 0.02
    """Decoupled weight decay; not applied to biases and norms."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm; 0: not clipped."""
    global_batch: int = 32
    """Pairs a step, over all ranks (G)."""
    max_skipped_steps: int = 3
    """Steps in a row that may be skipped because a loss or a gradient is not finite; their pairs are named in bad_steps.jsonl."""
    max_skipped_fraction: float = 0.1
    """The run stops when more than this share of its steps was skipped so (checked from 20 steps on, and at the end)."""
    epochs: float = 1.0
    """Passes over the training pairs, when ``optim.steps`` is 0."""
    steps: int = 0
    """Optimiser steps; 0: as many as ``optim.epochs`` needs."""
    tokens_per_micro_batch: int = 16384
    """Token budget of one forward pass on one rank: lower it when memory runs out. Results do not depend on it."""
    recompute: str = "auto"
    """How many layers compute their activations again in the backward pass instead of keeping them: ``all``, ``none``, a
    number, or ``auto``: as few as fit ``optim.activation_gb``, measured in the first steps. Results do not depend on it."""
    activation_gb: float = 0.0
    """GB a rank may keep of the layers' activations (``recompute: auto``); 0: what the first two steps left free of the GPU,
    or no limit on a CPU."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Saving and keeping."""

    every: int = 0
    """Steps between checkpoints; 0: only at the end."""
    keep: int = 2
    """Newest checkpoints to keep; 0: all."""
    keep_best: str = ""
    """A number of the validation, e.g. ``validation/pair_accuracy``: a checkpoint is saved after each validation that is better
    than those of all checkpoints there are, and the best one is kept beside the newest. Higher is better, but of
    ``blind_likelier`` and perplexities lower; a ``-`` before the name turns that round. Empty: only the newest are kept."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Validation inside the run, and the before/after pass at its end."""

    every: int = 0
    """Steps between validations; 0: only at the end."""
    max_pairs: int = 0
    """Score at most this many validation or held-out pairs; 0: all."""
    pictures: int = 6
    """Held-out pairs drawn on ``samples.png``; 0: no picture."""


@dataclass(frozen=True)
class Config:
    """A whole recipe: a frozen section for each part of a run. ``load_recipe`` reads one from YAML and overrides."""

    run: RunConfig = field(default_factory=RunConfig)
    """Where the run lives."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What is tuned."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters."""
    data: DataConfig = field(default_factory=DataConfig)
    """Shards and samples."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The loss."""
    corrupt: CorruptConfig = field(default_factory=CorruptConfig)
    """Corrupted images."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and batch."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Scoring held-back pairs."""
