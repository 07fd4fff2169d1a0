"""Saliency maps predicted by a network."""
