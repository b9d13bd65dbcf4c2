"""Values that MessagePack itself has no form for, as its extension types: see ``docs/values.md``."""
