"""Rows from wherever they are: published files, JSON lines, Parquet, the Hub."""
