"""What all kernels share: compilation and its cache, threads, vectors, memory."""
