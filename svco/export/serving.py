"""The part of a model card that says how to put the model behind an endpoint."""

from __future__ import annotations

from pathlib import Path

from ..model.adapter_files import read_config, read_form
from .facts import Base

_ASK = """from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
picture = {"type": "image_url", "image_url": {"url": "https://example.org/picture.jpg"}}
question = {"type": "text", "text": "What is in the picture?"}
answer = client.chat.completions.create(
    model="MODEL", messages=[{"role": "user", "content": [picture, question]}], temperature=0
)
print(answer.choices[0].message.content)"""


def how_to_serve(kind: str, base: Base, folder: Path) -> str:
    """The section on vLLM and transformers, of the export in ``folder`` that is an ``adapter``, ``merged`` or ``full``."""
    if kind != "adapter":
        lines = ["vllm serve .", "# or, with transformers alone:", "transformers serve . --port 8000"]
        return _section("", lines, ".")
    merging = f"svco export . --base {base.name} --format merged --to merged"
    if whole := read_form(folder).whole:
        why = f"vLLM takes no adapter with modules that were trained whole ({', '.join(whole)}): merge it first. "
        return _section(why, [merging, "vllm serve merged", "# or", "transformers serve merged --port 8000"], "merged")
    rank = read_config(folder).get("r", 16)
    lines = [
        f"vllm serve {base.name} --enable-lora --max-lora-rank {rank} --lora-modules tuned=.",
        "# or, merged into its base:",
        merging,
        "transformers serve merged --port 8000",
    ]
    return _section("", lines, "tuned")


def _section(why: str, lines: list[str], model: str) -> str:
    asked = _ASK.replace("MODEL", model)
    note = "" if model != "tuned" else " To the merged model the name is `merged`."
    return (
        f"## Serving\n\n{why}Either answers on port 8000.\n\n```sh\n"
        + "\n".join(lines)
        + f"\n```\n\n`model` is what the server was started with.{note}\n\n```py\n{asked}\n```"
    )
