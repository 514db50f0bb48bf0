"""Additive methods: new vectors or layers beside the frozen ones."""
