"""The reports: terminal, JSON, JUnit and HTML."""
