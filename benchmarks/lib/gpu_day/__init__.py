"""Parts of `gpu_day.py`: the steps of the first minutes on a GPU, their runner, and the page."""
