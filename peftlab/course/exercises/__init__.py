"""The exercises, one file for each lesson. Solutions and mutants live here, not in the notebooks."""
