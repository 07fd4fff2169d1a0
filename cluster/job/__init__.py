"""What runs inside a job, and what a run's folder records of its jobs."""
