"""Any number of ranks, workers, formats and stops, against one process."""
