"""Small-scale tests of each paper's claims: one script per paper, at three budgets."""
