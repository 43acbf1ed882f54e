"""DPO, IPO and cDPO against the loss TRL itself computes (``pip install 'svco[peer]'``), gradients included."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from svco.basics.views import CLASH, MATCH, Scores
from svco.objectives.table import make_objective
from svco.recipe.config import ObjectiveConfig

TOKENS = torch.tensor([[7, 4], [3, 11], [5, 5]])


def trl_loss(kind, logps, reference, tokens, beta, smoothing=0.0):
    """What ``DPOTrainer._compute_loss`` makes of one pair: ``logps`` and ``reference`` (2,), preferred response first.

    The trainer and its model are stood in for: the model says the log-probability of each sequence on its first token.
    """
    trl = pytest.importorskip("trl", reason="NOT TESTED: DPO against TRL's own loss: pip install 'svco[peer]'")
    width = int(tokens.max()) + 1
    mask = (torch.arange(width) >= 1) & (torch.arange(width) <= tokens[:, None])
    per_token = torch.nn.functional.pad(logps[:, None], (0, width - 2))
    flat = torch.zeros(2, width - 1)
    outputs = SimpleNamespace(log_probs=per_token, entropy=flat, mean_logits=flat, is_top1=flat.bool())
    same = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=same,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros_like(mask, dtype=torch.long),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask.long(),
        "ref_chosen_logps": reference[:1],
        "ref_rejected_logps": reference[1:],
    }
    return trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


@pytest.mark.parametrize(
    ("kind", "keys", "smoothing"),
    [
        ("sigmoid", {}, 0.0),
        ("sigmoid", {"beta": 0.4}, 0.0),
        # TRL's IPO takes Δ per token; so do we when asked.
        ("ipo", {"link": "ipo", "length_normalised": True}, 0.0),
        ("sigmoid_norm", {"length_normalised": True}, 0.0),
        # cDPO's formula, in TRL 1.16 under this name; for a batch of one pair its sorting changes nothing.
        ("aot_unpaired", {"label_smoothing": 0.2, "beta": 0.3}, 0.2),
    ],
)
def test_dpo_is_trls(kind, keys, smoothing):
    generator = torch.Generator().manual_seed(2)
    policy, reference = (torch.randn(3, 2, 3, generator=generator, dtype=torch.float64) * 4 - 30 for _ in range(2))
    policy.requires_grad_()
    config = ObjectiveConfig(name="dpo", **keys)
    ours = make_objective(config)(Scores(policy, TOKENS), Scores(reference, TOKENS))[0]
    (gradient,) = torch.autograd.grad(ours.sum(), policy)
    for p in range(3):
        under_image_0 = torch.stack([policy[p, 0, MATCH], policy[p, 1, CLASH]]).detach().requires_grad_()
        reference_0 = torch.stack([reference[p, 0, MATCH], reference[p, 1, CLASH]])
        theirs = trl_loss(kind, under_image_0, reference_0, TOKENS[p], config.beta, smoothing)
        theirs.backward()
        assert ours[p].item() == pytest.approx(theirs.item(), rel=1e-10)
        assert [gradient[p, 0, MATCH].item(), gradient[p, 1, CLASH].item()] == pytest.approx(
            under_image_0.grad.tolist()
        )
        wrong = trl_loss(kind, under_image_0.detach().flip(0), reference_0.flip(0), TOKENS[p], config.beta, smoothing)
        assert wrong.item() != pytest.approx(theirs.item(), rel=1e-3), "the sides the other way round are another loss"
