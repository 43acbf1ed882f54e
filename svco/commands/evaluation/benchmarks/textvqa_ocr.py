"""TextVQA with the OCR tokens in the prompt, as LLaVA's files and the S-VCO authors' evaluator have it: the paper's column."""

from __future__ import annotations

from .textvqa import made

BENCHMARK = made("textvqa_ocr", ocr=True)
