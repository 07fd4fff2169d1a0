"""CPU renderer in Numba: resize, paste, colour and blur on int16 planes, then encode."""
