"""The demo database, and the research tool's tables that the tests write too."""
