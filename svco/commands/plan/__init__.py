"""What a run will need and take, computed in seconds from the recipe, without weights or GPUs."""
