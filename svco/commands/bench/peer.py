"""Other people's trainers against ours on the same model, the same pairs and the same objective, step by step in turn."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from statistics import median
from typing import Any

import torch

from ... import engine as engines
from ...basics.dist import World
from ...basics.errors import UserError
from ...basics.markdown import markdown
from ...model.lora import target_names
from ...objectives.table import make_objective
from ...recipe.config import LoraConfig, ObjectiveConfig
from .count import moved
from .ladder import PRODUCT, ROWS, Tune
from .rivals import duel, trl_batch
from .run import Bench, Contestant, Measured, Plan, tight
from .shapes import TINY, random_model


def run_peer(peer: str, python: str, plan: Plan, ds: dict[str, Any] | None, world: World) -> str:
    """Runs ``--peer`` at ``plan``; the report."""
    if ds is None:
        return duel(peer, python, plan, world)
    if peer != "trl":
        raise UserError(f"--peer {peer} runs in a process of its own, without --ds.")
    try:
        import trl  # noqa: F401
    except ImportError:
        raise UserError("--peer trl needs TRL: pip install 'svco[peer]'.") from None
    return trl_duel(plan, ds, world)


def trl_duel(plan: Plan, ds: dict[str, Any], world: World) -> str:
    """TRL's ``DPOTrainer`` and our product take turns: one of TRL's steps, one of ours. Losses must agree first.

    Both: LoRA of the same rank and values on the same weights, DPO with β 0.1, AdamW at learning rate 0, ZeRO-3 with the
    same tight limits, all layers recomputed, the same pairs. TRL's own time is from its step's beginning to its end;
    collation is not counted on either side.
    """
    bench = Bench(plan, make_objective(ObjectiveConfig(name="dpo")), ds, world)
    ours = bench.enter(ROWS[PRODUCT], Measured(PRODUCT), None)
    with tempfile.TemporaryDirectory() as folder:
        theirs = make_trl(bench, ds, ours, folder)
        theirs.train()
    duel = theirs.duel
    # TRL's is the mean over its own micro-batch, ours too; both over the same pairs.
    our_loss, trl_loss = ours.result.loss, sum(world.gather(float(duel.losses[0]))) / world.size
    if abs(our_loss - trl_loss) > 1e-4 * abs(trl_loss):
        raise UserError(f"The losses of step 0 differ: {our_loss} here and {trl_loss} in TRL; nothing can be compared.")
    our_seconds = median(ours.result.seconds[1:])
    trl_seconds = max(world.gather(median(duel.seconds[1:])))
    our_gathers, trl_gathers = (
        f"{moved(collectives, 'gather')[1] / ours.result.model_bytes:.2f}"
        for collectives in (ours.result.collectives, duel.collectives)
    )
    cut = plan.cut_shape.cut or "nothing cut"
    return "\n".join(
        [
            f"### Against TRL {version('trl')} (`DPOTrainer`, transformers {version('transformers')}): {plan.shape}, dpo, LoRA",
            "",
            f"{world.size} ranks, ZeRO-3, {plan.pairs} pair(s) a step and rank, {plan.repetitions} steps each, in turn ({cut}). "
            f"Loss of step 0: {our_loss:.6f} here, {trl_loss:.6f} in TRL.",
            "",
            markdown(
                [
                    ["", "median step, s", "gathered ÷ model bytes"],
                    ["TRL", f"{trl_seconds:.3g}", trl_gathers],
                    ["svco", f"{our_seconds:.3g}", our_gathers],
                ]
            ),
            "",
            f"svco takes {our_seconds / trl_seconds:.3f} of TRL's time ({trl_seconds / our_seconds:.2f} times as fast).",
        ]
    )


class Duel:
    """Times TRL's steps and makes one of ours after each; TRL's callback calls ``begin`` and ``end``."""

    def __init__(self, ours: Contestant, world: World):
        self.ours, self.world = ours, world
        self.seconds: list[float] = []
        self.losses: list[torch.Tensor] = []
        self.collectives: dict[str, tuple[int, int]] = {}
        self._counting = ExitStack()
        self._found: dict[str, tuple[int, int]] = {}
        self._began = 0.0

    def begin(self, step: int) -> None:
        self.world.barrier()
        if step == 2:  # ZeRO-3's trace is settled; this step is counted and its time thrown away
            self._found = self._counting.enter_context(engines.counting_collectives(self.world))
        self._began = time.perf_counter()

    def end(self, step: int) -> None:
        took = time.perf_counter() - self._began
        if step == 2:
            self._counting.close()
            self.collectives = dict(self._found)
        elif step > 2:
            self.seconds.append(took)
        self.ours.timed_step()


def make_trl(bench: Bench, ds: dict[str, Any], ours: Contestant, folder: str) -> Any:
    """A ``DPOTrainer`` on the same weights and pairs, with a ``duel`` that hears of its every step."""
    from datasets import Dataset
    from peft import LoraConfig as PeftLoraConfig
    from transformers import AutoProcessor, TrainerCallback
    from trl import DPOTrainer

    plan, shape, tune = bench.plan, bench.shape, Tune(full=False)
    duel, batch, steps = Duel(ours, bench.world), trl_batch(bench), plan.repetitions + 4

    class Steps(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            duel.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            duel.end(state.global_step - 1)

    class Trainer(DPOTrainer):  # type: ignore[misc]  # trl has no types
        def training_step(self, *args: Any, **more: Any) -> torch.Tensor:
            loss = super().training_step(*args, **more)
            duel.losses.append(loss.detach())
            return loss

    model = random_model(shape, "sdpa", bench.dtype, torch.device("cpu"))
    names = target_names(model.get_submodule("model.language_model"), LoraConfig().targets)
    trainer = Trainer(
        model=model,
        args=trl_arguments(bench, ds, steps, folder),
        train_dataset=Dataset.from_list(
            [{"images": [], "index": i} for i in range(steps * plan.pairs * bench.world.size)]
        ),
        processing_class=AutoProcessor.from_pretrained(TINY),
        peft_config=PeftLoraConfig(
            r=min(tune.rank, shape.hidden // 8),
            lora_alpha=2 * tune.rank,
            target_modules=rf".*\blanguage_model\..*\b({'|'.join(names)})",
        ),
        data_collator=lambda examples: dict(batch),
        callbacks=[Steps()],
    )
    own = {name: ours.engine.gather(name) for name in ours.engine.trainable}
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(own[name.removeprefix("base_model.model.")])
    trainer.duel = duel
    return trainer


def trl_arguments(bench: Bench, ds: dict[str, Any], steps: int, folder: str) -> Any:
    """TRL's settings that make its step the same as ours."""
    from trl import DPOConfig

    cuda = bench.world.device.type == "cuda"
    return DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=bench.plan.pairs,
        gradient_accumulation_steps=1,
        max_steps=steps,
        learning_rate=0.0,
        beta=0.1,
        max_length=None,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=cuda,
        use_cpu=not cuda,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        deepspeed={
            "zero_optimization": tight(ds, bench.live)["zero_optimization"],
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "train_batch_size": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": cuda},
        },
    )
