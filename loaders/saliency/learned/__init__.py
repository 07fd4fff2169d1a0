"""Saliency maps predicted by a neural network."""
