"""Copy the figure of lesson 01 to docs/_static/dataflow.svg, which the README shows.

python -m tools.picture
"""

import base64
import re

from tools import lessons

PICTURE = lessons.ROOT / "docs" / "_static" / "dataflow.svg"


def figure():
    """Return the first figure of lesson 01, as it is stored."""
    cell, *_ = lessons.tagged(lessons.read(lessons.lesson_paths()[1]), "figure")
    [output] = cell.outputs
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', output.data["text/html"])[1]
    return base64.b64decode(data).decode("utf-8")


if __name__ == "__main__":
    lessons.write(PICTURE, figure())
