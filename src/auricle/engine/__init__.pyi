from .engine import Engine as Engine
from .engine import generate as generate
from .request import Constraint as Constraint
from .request import EngineBusy as EngineBusy
from .request import Generation as Generation
from .request import SamplingParams as SamplingParams
from .request import Token as Token
