"""A self-contained HTML page of many runs: no network, no library, any state of the store.

Python does the science and the reading (:mod:`.pools`, :mod:`.series`, :mod:`.causes`) and makes one JSON document
(:mod:`.document`); the page's own script (``page/*.js``) only draws it.
"""

from lambda_hat.report.page_data import Heading, make_page

__all__ = ["Heading", "make_page"]
