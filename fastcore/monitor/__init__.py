"""A port to look at a running server: a page, its figures, and whether it is well."""
