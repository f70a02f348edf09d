"""``headwatch bench ingest``: how many head summaries one core takes, and what happens to ten times as many."""
