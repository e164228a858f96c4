from .denoiser import Denoised as Denoised
from .denoiser import SpeechDenoiser as SpeechDenoiser
from .denoiser import DenoisedFile as DenoisedFile
from .stream import DenoiseStream as DenoiseStream
