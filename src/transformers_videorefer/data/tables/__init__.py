"""Rows as typed columns: features, Parquet files, dataset cards."""
