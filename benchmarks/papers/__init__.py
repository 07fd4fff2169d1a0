"""Each paper's claims in small: one script per paper, at three budgets."""
