"""Long runs: memory, descriptors, threads, rate and ledger."""
