"""A progress bar in the output of a notebook's cell."""

from __future__ import annotations

from io import StringIO
from typing import Any

from IPython.display import HTML, DisplayHandle
from rich.console import Console
from rich.progress import Progress, TaskID

WIDTH = 100
FORMAT = '<pre style="line-height: normal; margin: 0">{code}</pre>'


class NotebookProgress(Progress):
    """rich's progress bar, shown as HTML that is replaced: no widgets have to be installed.

    What it showed last stays.
    """

    def start(self) -> None:
        self._handle = DisplayHandle()
        self._handle.display(self._drawn())

    def stop(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        self._handle.update(self._drawn())

    def update(self, task_id: TaskID, *args: Any, **kwargs: Any) -> None:
        super().update(task_id, *args, **kwargs)
        self.refresh()

    def _drawn(self) -> HTML:
        console = Console(
            file=StringIO(), record=True, width=WIDTH, force_terminal=True, force_jupyter=False
        )
        console.print(self.get_renderable())
        return HTML(console.export_html(inline_styles=True, code_format=FORMAT))
