"""The paper's own figures (arXiv 2502.13928, tables 1 and 2), to stand beside a study's."""

from __future__ import annotations

from ...basics.markdown import markdown

COLUMNS = (
    "MMHal score",
    "MMHal hallucination %",
    "CV-Bench",
    "MMVP",
    "RealWorldQA",
    "MM-Vet",
    "LLaVA-Bench-W",
    "TextVQA",
    "ScienceQA",
    "TOTAL",
)
LLAVA_15_7B = {
    "BASE": (2.16, 57, 59.3, 21.3, 35.3, 30.46, 61.2, 46.40, 66.78, 0),
    "DPO · VLF": (2.06, 65, 57.0, 16.7, 39.5, 31.65, 68.1, 49.16, 66.71, -1.25),
    "DPO · MVC": (2.45, 53, 63.2, 22.0, 42.1, 33.53, 66.0, 49.43, 66.07, 8.11),
    "mDPO · VLF": (2.39, 57, 53.2, 18.7, 44.2, 31.79, 68.4, 41.71, 66.52, 2.11),
    "mDPO · MVC": (2.29, 56, 59.4, 20.7, 35.2, 31.51, 63.0, 46.42, 66.80, 1.26),
    "S-VCO · MVC": (2.75, 46, 63.5, 25.3, 43.0, 34.68, 69.5, 49.16, 67.22, 14.26),
}
LLAVA_INTERLEAVE_7B = {
    "BASE": (2.74, 46, 67.6, 41.3, 57.5, 41.01, 74.5, 59.45, 74.77, 0),
    "SFT · MVC": (2.68, 46, 66.6, 38.7, 56.5, 38.94, 70.7, 59.32, 74.77, -2.45),
    "DPO · VLF": (2.70, 48, 68.1, 42.7, 54.4, 40.87, 81.0, 59.20, 74.79, 0.10),
    "DPO · MVC": (2.92, 38, 68.8, 46.7, 57.9, 41.51, 83.5, 59.76, 73.80, 5.78),
    "mDPO · VLF": (2.97, 42, 68.0, 42.0, 54.8, 40.46, 79.3, 58.97, 74.53, 2.07),
    "mDPO · MVC": (3.04, 38, 70.0, 44.7, 57.9, 41.24, 80.2, 59.43, 74.65, 5.43),
    "VCO · MVC": (3.16, 39, 70.1, 46.0, 56.2, 42.61, 84.8, 59.87, 74.44, 6.82),
    "S-VCO · unfiltered": (3.10, 35, 71.3, 46.0, 58.8, 40.55, 86.5, 59.22, 73.87, 7.73),
    "S-VCO · MVC": (3.28, 35, 70.7, 50.7, 58.2, 44.04, 85.0, 60.26, 73.87, 10.47),
}


def paper_tables() -> str:
    """Both tables in Markdown, marked as what they are."""
    parts = []
    for model, table in (("LLaVA-1.5-7B", LLAVA_15_7B), ("LLaVA-Interleave-Qwen-7B", LLAVA_INTERLEAVE_7B)):
        lines = [["", *COLUMNS], *([name, *map("{:g}".format, row)] for name, row in table.items())]
        parts.append(f"**The paper's rows, {model}** (reported there, not measured here):\n\n{markdown(lines)}")
    return "\n\n".join(parts)
