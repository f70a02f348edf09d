"""Code of ours in C: compiled on the machine that runs it (docs/adr/0004-cpu-kernel-in-c.md, 0018-ingest-in-c.md)."""
