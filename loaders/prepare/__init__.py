"""Makes shards and betons from any source; `python -m patchmill.loaders.prepare` is its command."""
