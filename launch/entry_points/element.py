"""``launch.element.Element``, which the pickles of array elements queued at 31848a6 name.

In a wheel this folder is ``launch``, without an ``__init__.py``: any other module or package of that name comes first.
"""

from lambda_hat.launch.element import Element

__all__ = ["Element"]
