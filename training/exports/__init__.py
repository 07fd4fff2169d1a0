"""Export of a run's backbone in the formats of other libraries."""
