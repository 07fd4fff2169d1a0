"""Configuration of a run: from command-line overrides and YAML to a checked `Config`.

The folders next to this file hold the YAML that Hydra composes, one for each config group: method,
data, model, optim, evaluate and scale. `tuned` holds the changes of a scale to a method's recipe,
and config.yaml the order in which files are merged.
"""
