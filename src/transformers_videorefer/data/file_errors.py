"""What broken media files make readers raise."""

from PIL import Image


try:
    import av
except ImportError:  # folders of pictures are read without it
    av = None

# Not every error of PyAV is an OSError, and a picture of too many pixels is none either.
FILE_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    Image.DecompressionBombError,
    *(() if av is None else (av.FFmpegError,)),
)
