"""The renderers' stages: their floors, their times, their table."""
