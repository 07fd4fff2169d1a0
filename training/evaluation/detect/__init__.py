"""evaluate=detect: object detection and instance segmentation on a run's backbone."""
