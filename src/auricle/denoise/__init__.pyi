from .denoiser import Denoised as Denoised
from .denoiser import DenoisedFile as DenoisedFile
from .denoiser import SpeechDenoiser as SpeechDenoiser
from .stream import DenoiseStream as DenoiseStream
