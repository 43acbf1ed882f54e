"""One process without DeepSpeed: the same interface, for a laptop, for debugging and as the tests' yardstick."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.dist import World
from ..basics.errors import UserError
from ..model.load import Tuned
from ..recipe.config import OptimConfig
from .optimizer import MOMENTS, TrainableState, all_finite, make_adamw

if TYPE_CHECKING:
    import torch


class PlainEngine:
    """Holds float32 masters when the model is bfloat16, as ZeRO does."""

    portable = True
    """Checkpoints fit any engine and any number of ranks."""
    scaled = False
    """float16, whose gradients need a loss scale, is refused."""

    def __init__(self, tuned: Tuned, config: OptimConfig, world: World):
        import torch

        self.scorer = tuned.scorer.to(world.device)
        self.trainable = tuned.trainable
        if any(p.dtype == torch.float16 for p in self.trainable.values()):
            raise UserError("model.dtype float16 needs DeepSpeed's loss scaling: give a --ds file, or use bfloat16.")
        self.masters = {
            name: p if p.dtype in (torch.float32, torch.float64) else torch.nn.Parameter(p.detach().float())
            for name, p in self.trainable.items()
        }
        self.optimizer = make_adamw(self.masters, config)
        self.skipped = False
        self.max_grad_norm = config.max_grad_norm or float("inf")
        self._grads: dict[str, torch.Tensor] = {}

    def __call__(self, batch: Any) -> Any:
        return self.scorer(batch)

    def train(self, mode: bool = True) -> None:
        self.scorer.train(mode)

    def accumulation(self) -> AbstractContextManager[None]:
        """Around the backward passes of one step."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()
        for name, p in self.trainable.items():
            if self.masters[name] is not p and p.grad is not None:
                # Gradients add up in float32, not in the model's dtype.
                grad = p.grad.float()
                self._grads[name] = grad if name not in self._grads else self._grads[name].add_(grad)
                p.grad = None

    def step(self, lr: float) -> torch.Tensor:
        """One update at learning rate ``lr``, none where it is not finite; the global gradient norm before clipping (0-d)."""
        import torch

        for name, grad in self._grads.items():
            self.masters[name].grad = grad
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.skipped = not torch.isfinite(norm).item()
        if not self.skipped:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._grads.clear()
        self._publish()
        return norm

    def _publish(self) -> None:
        import torch

        with torch.no_grad():
            for name, p in self.trainable.items():
                if self.masters[name] is not p:
                    p.copy_(self.masters[name])

    def finite(self) -> bool:
        """Whether every trained weight is a finite number."""
        return all_finite(self.masters.values())

    def gather(self, name: str) -> torch.Tensor:
        """Trained parameter ``name`` in the model's dtype, on the CPU."""
        return self.trainable[name].detach().cpu()

    def save(self, folder: Path) -> list[Path]:
        """Writes the state into ``folder``; the files written."""
        import torch

        values = {name: p.detach().cpu() for name, p in self.masters.items()}
        states = {name: self.optimizer.state.get(p, {}) for name, p in self.masters.items()}
        moments = {
            m: {name: states[name].get(m, torch.zeros_like(p)).cpu() for name, p in self.masters.items()}
            for m in MOMENTS
        }
        adam_step = max((int(state["step"]) for state in states.values() if state), default=0)
        return TrainableState(values, moments, adam_step).save(folder)

    def load(self, folder: Path) -> None:
        import torch

        state = TrainableState.load(folder)
        with torch.no_grad():
            for name, p in self.masters.items():
                p.copy_(state.values[name])
                self.optimizer.state[p] = {"step": torch.tensor(float(state.adam_step))} | {
                    m: state.moments[m][name].to(p) for m in MOMENTS
                }
        self._publish()
