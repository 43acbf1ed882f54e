"""svco: S-VCO fine-tuning of vision-language models on DeepSpeed ZeRO-3."""

__version__ = "0.1.0"
