"""Code that runs inside a job, and the records and logs a job leaves in its run's folder."""
