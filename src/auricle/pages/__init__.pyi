from .page import document as document
from .page import table as table
from .plots import svg as svg
