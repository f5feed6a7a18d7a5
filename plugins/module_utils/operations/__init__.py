"""The decisions of scale, reset, promote, backup and restore (one file each), and what the acts need."""
