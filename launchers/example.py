"""svco as a library: score a pair, take a loss and its gradient, train with an objective of one's own.

``python launchers/example.py [section.key=value ...]``. No GPU needed, half a minute.
"""

import argparse
import json
from typing import Any

import svco
from svco.basics.errors import exit_codes
from svco.basics.views import BLIND, MATCH, VIEWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="recipe values to override")
    overrides = parser.parse_args().overrides

    import torch
    from PIL import Image, ImageDraw

    # 1. A recipe, and a pair: two images, one question, and for each image the answer that is true of it.
    config, colours = svco.load_recipe("tiny", overrides), ("blue", "yellow")
    images = [Image.new("RGB", (48, 48), "lightgrey") for _ in colours]
    for image, colour in zip(images, colours):
        ImageDraw.Draw(image).rectangle((14, 14, 34, 34), fill=colour)
    answers = [f"The square in this picture is {colour}." for colour in colours]
    pair = svco.Pair.of("What colour is the square?", answers, images)

    # 2. Its six cells: each answer's log-probability with its own image, with none, and with the other one.
    reference = svco.score(config.model.base, [pair])  # logps (P, 2, V), in nats, with P = 1 pair and V = 3 views
    show("log-probabilities, nats", reference.logps[0])

    # 3. The recipe's objective is a function of policy and reference. Here both are the same model: 4 ln 2.
    policy = svco.Scores(reference.logps.clone().requires_grad_(), reference.tokens)
    loss, report = svco.make_objective(config.objective)(policy, reference)  # (P,), and figures of each term
    (gradient,) = torch.autograd.grad(loss.sum(), policy.logps)
    show(f"{config.objective.name}: loss {loss.item():.4f}, its gradient", gradient[0])

    # 4. An objective of one's own: a function of a side that lists terms. Hinge on match over blind, mean of both sides.
    @svco.register("see-it", "match over blind, by a hinge", sides="both", combine="mean")
    def see_it(side: int, objective: object) -> list[svco.Term]:
        return [svco.Term("attend", side, {(side, MATCH): 1, (side, BLIND): -1}, link=lambda m: torch.relu(1 - m))]

    # 5. Five steps with it, in this process; ``ds="zero3"`` would be one rank of a DeepSpeed launch.
    few = ["objective.name=see-it", "optim.steps=5", "optim.global_batch=16", "data.validation=", "data.heldout="]
    folder = svco.train(svco.load_recipe("tiny", [*few, *overrides]))
    for step in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        print(f"step {step['step']}: loss {step['loss']:.4f}")
    show("after training, nats", svco.score(config.model.base, [pair], folder / "adapter").logps[0])


def show(title: str, cells: Any) -> None:
    print(f"\n{title:<40}" + "".join(f"{view:>10}" for view in VIEWS))
    for side, row in enumerate(cells.tolist()):
        print(f"{f'answer {side}':<40}" + "".join(f"{value:10.4f}" for value in row))


if __name__ == "__main__":
    with exit_codes():
        main()
