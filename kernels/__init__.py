"""CPU (Numba) and GPU (Triton) kernels: one folder per operation, all laid out alike.

    __init__      public functions and their argument checks
    reference     the definition in plain torch, which the fast versions are tested against
    operators     torch custom operators: autograd, torch.compile, autocast (if differentiable)
    cpu, gpu      the two implementations: memory, partitioning, launches
    cpu_loops     Numba loops, where `cpu` has many
    gpu_kernels   Triton kernels that `gpu` launches

`cpu` and `gpu` are folders where they hold several stages (`views`). `common` holds what the
operations share: dispatch by device, compilation and its cache, threads, SIMD vectors, memory.
"""
