"""Traces and explanations for people: on the terminal, as a figure, as a page."""
