from fastcore.values.kinds import Kind

KINDS: dict[type, Kind]
