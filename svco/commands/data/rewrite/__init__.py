"""Caption pairs to a shared question and two answers that differ where the pictures do: ``svco data rewrite``."""
