"""The losses that methods share."""
