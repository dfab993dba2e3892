"""The examination of a database: which items there are, and what each of them finds."""
