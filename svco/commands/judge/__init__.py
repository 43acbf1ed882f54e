"""Has another model judge answers in free words: MMHal-Bench, MM-Vet, LLaVA-Bench-W."""
