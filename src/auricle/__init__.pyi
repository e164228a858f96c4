from .audio import decode as decode
from .denoise.denoiser import load_denoiser as load_denoiser
from .encode import load_aligner as load_aligner
from .encode import load_encoder as load_encoder
from .errors import AuricleError as AuricleError
from .listen import Answer as Answer
from .listen import Description as Description
from .listen import Transcript as Transcript
from .listen import load as load

__version__: str
