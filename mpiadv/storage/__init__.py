"""What a run keeps on disk beside its log, and how files are read and written whole."""
