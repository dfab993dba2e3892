"""The HTML report: one file that needs no network and is safe with any contents of a database.

Jinja2 renders the frame; the data are compressed (see `compression`) and drawn in the page on demand, because thousands
of diagrams as images would be a hundred megabytes. Observable Plot draws them (see `vendor`); the page has a copy of
0.25 MB. matplotlib only makes images, Plotly's script alone takes 4.6 MB, and uPlot draws time series, but neither
symbols nor bars from birth to death.
"""

from pytest_panic_doctor.report.html.page import require_jinja, write_html

__all__ = ["require_jinja", "write_html"]
