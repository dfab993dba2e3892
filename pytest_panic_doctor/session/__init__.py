"""All that depends on pytest and pytest-xdist: options, items, plugin objects and commands."""
