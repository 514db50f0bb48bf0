"""Reparameterisation: a change of the weights, written with few numbers."""
