"""CPU (Numba) and GPU (Triton) kernels: one folder per operation, all laid out alike.

    __init__      public functions and their argument checks
    reference     the definition in plain torch, which the fast versions are tested against
    operators     torch custom operators: autograd, torch.compile, autocast (if differentiable)
    cpu           CPU implementation: memory, partitioning over threads
    cpu_loops     its compiled loops
    gpu           GPU implementation: memory, block sizes, launches
    gpu_kernels   its Triton kernels

`views` has many stages: its `cpu` and `gpu` are folders of one file per stage. `common` is shared:
dispatch by device, compilation and its cache, threads, SIMD vectors, memory.
"""
