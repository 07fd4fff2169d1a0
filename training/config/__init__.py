"""Configuration: YAML files, command-line overrides, and checks between settings."""
