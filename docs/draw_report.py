"""The picture in report.md: the top of a report's page, as a browser shows it.

python -m docs.draw_report report.html
"""

import sys
from pathlib import Path

from tests.report.browser import Browser, find

PICTURE = Path(__file__).resolve().parent / "images" / "report.png"


def main() -> None:
    command = find()
    if command is None:
        sys.exit("needs Chromium: apt-get install chromium")
    with Browser(command) as browser:
        browser.open(Path(sys.argv[1]), height=1250)
        browser.picture(PICTURE)
    print(f"picture: {PICTURE}")


if __name__ == "__main__":
    main()
