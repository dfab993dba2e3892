"""Reading trajectory databases: the file, the generations of the research tool, and the encodings of their values."""
