"""`overfit`: grids of integers, a small context net and a small synthesis, all fitted to the one picture."""
