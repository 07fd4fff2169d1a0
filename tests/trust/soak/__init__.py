"""Long runs: memory, file descriptors, threads, throughput and ledger."""
