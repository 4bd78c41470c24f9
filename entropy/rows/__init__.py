"""Rows of symbols whose tables follow from the symbols before them, and the fitting of those tables."""
