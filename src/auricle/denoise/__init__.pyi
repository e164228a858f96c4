from .denoiser import Denoised as Denoised
from .denoiser import SpeechDenoiser as SpeechDenoiser
from .denoiser import load_denoiser as load_denoiser
from .stream import DenoiseStream as DenoiseStream
