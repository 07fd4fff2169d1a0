"""What a trained network knows: kNN, linear probes, patches, reliance on backgrounds."""
