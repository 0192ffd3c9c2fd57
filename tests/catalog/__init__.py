"""The shipped hardware catalog: consistency, names, sources, and hostile files."""
