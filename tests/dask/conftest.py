"""What is here needs the extra ``dask``, which not every Python and system can have."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("distributed") else ["*"]
