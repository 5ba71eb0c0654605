"""The lessons: what a lesson script calls, and what finds and runs the scripts.

A lesson is a plain Python script in jupytext's percent format: text cells, equations, calls. It
runs top to bottom as a script, as ``pymlp lesson 1``, and as a notebook; its pictures and numbers
go through one object::

    from pymlp.lessons import begin

    lesson = begin()                      # .short is true where seconds must do
    lesson.figure(figure, "surface")      # saved as surface.png, shown in a notebook
    lesson.number("energy RMSE", 0.25, "kcal/mol")
    lesson.end()                          # the time it took
"""

from pymlp.lessons.scripts import Cell, Script, find, notebook, parse, run, scripts
from pymlp.lessons.session import Lesson, begin

__all__ = ["Cell", "Lesson", "Script", "begin", "find", "notebook", "parse", "run", "scripts"]
