"""What a measurement looks like: one HTML file, tables, maps of errors and bits."""
