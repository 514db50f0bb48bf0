"""Quizzes and predictions, one file for each lesson."""
