"""Configuration of a run: from command-line overrides and YAML to a checked `Config`.

The folders beside this file hold the YAML that Hydra composes, one for each group of choices:
method, data, model, optim, evaluate and scale. `tuned` holds what a scale changes for a method, and
config.yaml the order in which files are merged.
"""
