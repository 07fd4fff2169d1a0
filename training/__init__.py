"""Training: methods, recipes, the training loop, evaluation and reports."""
