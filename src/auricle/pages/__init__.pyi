from .players import Players as Players
from .plots import svg as svg
from .render import render as render
from .table import Column as Column
from .table import Table as Table
