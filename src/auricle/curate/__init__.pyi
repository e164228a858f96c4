from .decision import FilterConfig as FilterConfig
from .filter import Filtered as Filtered
from .filter import filter_shards as filter_shards
from .filter import undo_filter as undo_filter
from .stages import Stage as Stage
from .stages import run_stages as run_stages
