"""fastcore beside today's Dask; needs the extra ``dask``.

Importing this room costs nothing: what needs ``distributed`` imports it where it is used.
"""
