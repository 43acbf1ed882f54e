"""What is asked for: a recipe's keys, how it is read and checked, the DeepSpeed JSON, the paper's values."""
