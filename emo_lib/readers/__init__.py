"""Readers: one module a folder layout. `emo_lib.datasets.open_dataset` chooses among them; each offers the same `features`, `trials`, `problems` and `summary`."""
