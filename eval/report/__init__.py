"""The report of a benchmark: rows, tables, figures, documents."""
