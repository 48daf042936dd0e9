"""Rows, arrays and caches; pure functions, no Ray."""
