"""What ``headwatch store`` does: status, check, compact, backup, restore and purge."""
