"""Export of a run's backbone in the forms that other libraries load."""
