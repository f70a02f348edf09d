"""From a delivery to rows of the store: batches, the spool before them, and their inserts."""
