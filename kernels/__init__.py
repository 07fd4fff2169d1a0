"""One folder for each operation: a plain definition, and fast versions held to it."""
