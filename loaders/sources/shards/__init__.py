"""WebDataset shards on a local or mounted disk."""
