"""Records every repair in a journal beside the database, so that each can be recovered and undone."""
