"""`gpu_day.py`: the steps of the first minutes on a GPU, running them, and the page on them."""
