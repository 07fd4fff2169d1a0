"""The function with which DINO, MAE and iBOT replace `print`, to test that this works."""

# As in facebookresearch/dino, utils.py.
UTILS = """
def setup_for_distributed(is_master):
    import builtins as __builtin__
    builtin_print = __builtin__.print

    def print(*args, **kwargs):
        force = kwargs.pop('force', False)
        if is_master or force:
            builtin_print(*args, **kwargs)

    __builtin__.print = print
"""
