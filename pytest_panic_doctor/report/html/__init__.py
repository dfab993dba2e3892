"""The HTML report: one file that needs no network, whatever a database holds.

Jinja2 renders the page's frame; the data are packed (see `packing`) and drawn in the page, on demand: thousands of
diagrams as finished pictures would be a hundred megabytes. What is drawn is drawn by Observable Plot (see `vendor`),
of which the page has a copy, for 0.25 MB. matplotlib was not taken because it makes finished pictures, Plotly because
its script alone takes 4.6 MB, uPlot because it draws series over time and neither symbols nor bars from birth to death.
"""

from pytest_panic_doctor.report.html.page import require_jinja, write_html

__all__ = ["require_jinja", "write_html"]
