"""What pytest reads here before anything else, also for a user who runs the demo in this folder: nothing to install."""

pytest_plugins = ["pytester"]
