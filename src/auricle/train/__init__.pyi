from .config import RunConfig as RunConfig
from .config import load_config as load_config
from .loop import run as run
from .objective import Objective as Objective
