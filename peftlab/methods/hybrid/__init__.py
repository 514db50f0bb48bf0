"""Hybrids: several families at once."""
