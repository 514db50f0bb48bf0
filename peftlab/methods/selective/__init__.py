"""Selective methods: a chosen few of the model's own parameters."""
