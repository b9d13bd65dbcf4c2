"""What is here needs the extra ``dask``, which not every Python and system can have."""

import importlib.util

collect_ignore_glob = []
if importlib.util.find_spec("distributed"):
    import dask

    # A worker that isn't back in 15 s is given up for good, and a busy machine takes longer to start one.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "120s"})
else:
    collect_ignore_glob = ["*"]
