"""Rows as chat messages, and chat messages as batches of tensors."""
