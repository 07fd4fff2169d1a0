"""WebDataset shards streamed from web servers, object stores or commands."""
