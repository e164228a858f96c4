from .build import build_index as build_index
from .query import Hit as Hit
from .query import Index as Index
