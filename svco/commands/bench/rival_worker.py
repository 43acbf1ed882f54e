"""One trainer's plain DPO steps, each when it is told to: a process of its own, run by the Python of its own environment.

    python rival_worker.py KIND FOLDER

``KIND``: ``trl``, ``trl-labelled``, ``swift`` or ``swift-unpadded``. ``FOLDER`` is what :mod:`.rivals` wrote. A line on the
standard input asks for a step; a line of JSON answers with its loss, its processor seconds and the process's peak of memory.
Nothing of svco is imported: it need not be installed there.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any


class Turns:
    """Waits before each step, and tells of it afterwards, on what was the standard output."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what trainers print must not be taken for an answer
        self.loss, self.began = 0.0, 0.0

    def begin(self) -> None:
        if not sys.stdin.readline():
            sys.exit(0)
        self.began = time.process_time()

    def end(self) -> None:
        took = time.process_time() - self.began
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"loss": self.loss, "seconds": took, "peak": peak}), file=self.answers, flush=True)


def main(kind: str, folder: Path) -> None:
    """Steps until nobody asks any more."""
    import torch
    from safetensors.torch import load_file
    from transformers import TrainerCallback

    torch.set_num_threads(1)
    turns, job = Turns(), json.loads((folder / "job.json").read_text())
    batch = load_file(folder / "batch.safetensors")
    if kind.startswith("swift"):
        trainer = swift_trainer(folder, job, batch, padded=kind == "swift")
    else:
        trainer = trl_trainer(folder, job, batch)
    if kind == "trl-labelled":
        score_labelled(trainer.model)
    adapters = load_file(folder / "adapters.safetensors")
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(adapters.pop(name.removeprefix("base_model.model.").replace(".default", "")))
    assert not adapters, f"without a place: {list(adapters)[:3]}"

    class Steps(TrainerCallback):
        def on_step_begin(self, *given: Any, **more: Any) -> None:
            turns.begin()

        def on_step_end(self, *given: Any, **more: Any) -> None:
            turns.end()

    plain = trainer.training_step

    def noting(*given: Any, **more: Any) -> Any:
        loss = plain(*given, **more)
        turns.loss = float(loss)
        return loss

    trainer.training_step = noting
    trainer.add_callback(Steps())
    trainer.train()


def settings(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": job["pairs"],
        "gradient_accumulation_steps": 1,
        "max_steps": 10_000,
        "learning_rate": 0.0,
        "beta": 0.1,
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
    }


def adapter(job: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=job["rank"], lora_alpha=job["alpha"], target_modules=job["targets"])


def examples(job: dict[str, Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"images": [], "index": i} for i in range(10_000 * job["pairs"])])


def trl_trainer(folder: Path, job: dict[str, Any], batch: dict[str, Any]) -> Any:
    """TRL's ``DPOTrainer``."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(
        model=LlavaForConditionalGeneration.from_pretrained(folder / "model", attn_implementation="sdpa"),
        args=DPOConfig(max_length=None, **settings(folder, job)),
        train_dataset=examples(job),
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
        peft_config=adapter(job),
        data_collator=lambda _: dict(batch),
    )


def score_labelled(model: Any) -> None:
    """TRL projects every position where it has no Triton, and the labelled ones alone where it has: here its forward, which it
    has put on ``model``, takes the second way, with the same arithmetic behind it."""
    for module in model.modules():
        method = vars(module).get("forward")
        theirs = getattr(method, "__func__", None)
        if theirs is not None and theirs.__code__.co_name == "_fused_forward":
            # The same function, to which Triton is there; the kernels behind it ask for themselves.
            names = theirs.__globals__ | {"_use_triton": lambda device: True}
            ours = FunctionType(theirs.__code__, names, theirs.__name__, theirs.__defaults__, theirs.__closure__)
            ours.__kwdefaults__ = theirs.__kwdefaults__
            module.forward = MethodType(ours, module)
            return
    raise RuntimeError("this version of TRL has no forward of its own to take the labelled positions")


def swift_trainer(folder: Path, job: dict[str, Any], batch: dict[str, Any], padded: bool) -> Any:
    """ms-swift's ``DPOTrainer``, on what its own loader makes of the model. Its command line refuses to run without padding where
    there is no flash-attn, and for LLaVA-1.5's template; its trainer does not, and positions tell transformers' attention where a
    sequence begins."""
    import torch
    from peft import get_peft_model
    from swift.model import get_model_processor
    from swift.rlhf_trainers import DPOConfig, DPOTrainer
    from swift.template import get_template

    model, processor = get_model_processor(
        str(folder / "model"), torch_dtype=torch.float32, model_type="llava1_5_hf", attn_impl="sdpa", device_map="cpu"
    )
    template = get_template(processor, template_type="llava1_5_hf")
    template.set_mode("rlhf")
    info, meta = model.model_info, model.model_meta
    wrapped = get_peft_model(model.requires_grad_(False), adapter(job))
    wrapped.model_info, wrapped.model_meta = info, meta
    wrapped.enable_input_require_grads()
    given = {**batch}
    given["labels"] = given["input_ids"].masked_fill(given.pop("completion_mask") == 0, -100)
    if not padded:
        template.padding_free = True
        real = given.pop("attention_mask").bool()
        given["position_ids"] = (real.cumsum(1) - 1)[real][None]
        given |= {name: given[name][real][None] for name in ("input_ids", "labels")}
    trainer = DPOTrainer(
        model=wrapped,
        ref_model=None,
        args=DPOConfig(check_model=False, loss_type="sigmoid", **settings(folder, job)),
        template=template,
        train_dataset=examples(job),
    )
    trainer.data_collator = lambda _: dict(given)
    return trainer


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
