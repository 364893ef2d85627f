"""The files of a report: `report.html`, and each picture as `plots/NAME.svg` and `plots/NAME.png`."""

from __future__ import annotations

from pathlib import Path

from codellm_eval.bench.records.folder import Folder
from codellm_eval.errors import ResultsError
from codellm_eval.files.writing import write_whole
from codellm_eval.report.page import page
from codellm_eval.report.pictures import Picture, pictures

FILE = "report.html"
PLOTS = "plots"


def write_report(path: Path) -> Path:
    """Make the report of the results folder `path` in it, over an earlier one; returns the page's path.

    The same records give the same bytes, whenever and wherever it is made with the same version of matplotlib.

    Raises:
        ResultsError: the folder holds no results, or cannot be written.
    """
    folder = Folder.read(path)
    drawn = pictures(folder)
    try:
        (path / PLOTS).mkdir(exist_ok=True)
        for picture in drawn:
            if isinstance(picture, Picture):
                write_whole(path / PLOTS / f"{picture.name}.svg", picture.svg)
                write_whole(path / PLOTS / f"{picture.name}.png", picture.png)
        write_whole(path / FILE, page(folder, drawn))
    except OSError as error:
        raise ResultsError(f"{error.filename or path}: cannot be written ({error.strerror})") from error
    return path / FILE
