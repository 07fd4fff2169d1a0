"""Pixel operations around the estimators: frames, resampling, thresholds."""
