"""Today's Dask over fastcore, beside Dask over its own schemes."""
