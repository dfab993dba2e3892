"""The demo: a small database with known defects, which `pytest --doctor-demo` builds."""
