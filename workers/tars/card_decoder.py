"""JPEGs decoded on a GPU by nvJPEG, many in one call: what a job gets with `preprocess.decoder: nvjpeg`.

    header            Pillow, in threads: size and orientation, and whether the GPU decodes the file (jpeg_header.py)
    stored pixels     nvJPEG; Pillow for all other files
    resize and crop   Pillow, in threads, as for every job (images.py)

Its pixels differ from Pillow's by some levels, so the decoder is part of a run's identity. Not covered: keeping pixels
on the GPU; a resize there would be another one.
"""

import io
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from smoothcert.manifests.errors import ImageError, RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.manifests.names import one_line
from smoothcert.workers.tars.images import (
    MAX_PIXELS,
    DecodedImage,
    OpenedImage,
    decode,
    decoder_version,
    finish,
    open_image,
)
from smoothcert.workers.tars.jpeg_header import is_usual_jpeg

_MAX_ERROR_CHARACTERS = 200
_OUT_OF_MEMORY = re.compile(r"Failed to [a-z ]+: 5\b")  # NVJPEG_STATUS_ALLOCATOR_FAILURE
_PIXELS_AT_ONCE = MAX_PIXELS  # in one call, so that a batch of large photos fits the memory


class CardDecoder:
    """Decodes JPEGs on a device, many in one call: torchvision's decoder serves one call at a time.

    Args:
        device: a GPU. On the CPU torchvision gives Pillow's pixels; tests use that.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # In the stream of the votes a call would wait for all votes that are queued there. It could also get memory
        # that they still use: torchvision's decoder writes from a stream of its own.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def try_out(self) -> None:
        """Decode a small JPEG.

        Raises:
            RequestError: torchvision cannot decode on this device.
            RuntimeError: the device is at fault; another machine may do better.
        """
        try:
            self._decode([_small_jpeg()])
        except (RuntimeError, AttributeError) as error:  # a later torchvision may have no decoder
            if _is_of_the_device(error):
                raise
            raise RequestError(
                f"preprocess.decoder: torchvision {torchvision.__version__} cannot decode with nvJPEG on "
                f"{platform.node()} ({_text(error)}); install one that can, or use decoder: pillow, which is another "
                "run"
            ) from None

    def pixels_of(self, files: Sequence[bytes]) -> list[NDArray[np.uint8] | ImageError]:
        """Decode files, in order: [height, width, 3] each, or why one cannot be decoded.

        Args:
            files: JPEGs that `is_usual_jpeg` accepts, at least one.
        Raises:
            RuntimeError: the GPU is at fault, not a file.
        """
        try:
            return list(self._decode(files))
        except RuntimeError as error:  # one damaged file fails the whole call; so does a lack of memory
            if _is_of_the_device(error):
                if not _is_lack_of_memory(error) or len(files) == 1:
                    raise
                torch.cuda.empty_cache()  # nvJPEG has an allocator of its own
            elif len(files) == 1:
                self._decode([_small_jpeg()])  # if that fails, too, the GPU is at fault
                return [ImageError("decode_error", f"nvJPEG: {_text(error)}")]
        middle = len(files) // 2
        return self.pixels_of(files[:middle]) + self.pixels_of(files[middle:])

    def _decode(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """[height, width, 3] of each file. Raises RuntimeError if one cannot be decoded."""
        coded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
        with torch.cuda.stream(self._stream):  # None: no stream
            images_CHW = torchvision.io.decode_jpeg(coded, mode=torchvision.io.ImageReadMode.RGB, device=self._device)
            images_HWC = [image.permute(1, 2, 0) for image in images_CHW]
            values = torch.cat([image.reshape(-1) for image in images_HWC]).cpu().numpy()  # one copy for all
        ends = np.cumsum([image.numel() for image in images_HWC])
        parts = np.split(values, ends[:-1])
        return [part.reshape(image.shape) for part, image in zip(parts, images_HWC, strict=True)]


def card_for(preprocess: Preprocess) -> CardDecoder | None:
    """What decodes JPEGs for a job on this process's GPU; None for a job that decodes with Pillow alone.

    Raises:
        RequestError: the process has no GPU, or torchvision cannot use its decoder.
    """
    return None if preprocess.decoder == "pillow" else _card()


def decoder_of(preprocess: Preprocess) -> str:
    """Names and versions of a job's decoders, as every file of votes records them."""
    if preprocess.decoder == "pillow":
        return decoder_version()
    cuda = torch.version.cuda
    return f"nvJPEG of torchvision {torchvision.__version__}, CUDA {cuda}; for other files {decoder_version()}"


def decode_one(data: bytes, preprocess: Preprocess) -> DecodedImage:
    """Decode one image as its job says; `decode_on_card` takes less time for each of many.

    Raises:
        RequestError: as for `card_for`.
    """
    card = card_for(preprocess)
    if card is None:
        return decode(data, preprocess)
    (decoded,) = decode_on_card([data], preprocess, card)
    return decoded


def decode_on_card(
    files: Sequence[bytes],
    preprocess: Preprocess,
    card: CardDecoder,
    for_each: Callable[..., Iterable[Any]] = map,
) -> list[DecodedImage]:
    """Decode and preprocess images, in order. The GPU decodes the usual JPEGs among them, Pillow the others.

    Args:
        files: the image files.
        preprocess: of the job.
        card: decodes JPEGs.
        for_each: calls a function for each item: `map`, or that of a ThreadPoolExecutor.
    """
    opened: list[OpenedImage] = list(for_each(lambda data: open_image(data, preprocess), files))
    usual = [place for place, data in enumerate(files) if opened[place].image is not None and is_usual_jpeg(data)]
    others = sorted(set(range(len(files))) - set(usual))
    by_pillow = for_each(lambda place: finish(opened[place], preprocess), others)  # threads begin at once
    decoded: dict[int, DecodedImage] = {}
    for places in _parts(usual, opened):
        stored = card.pixels_of([files[place] for place in places])
        finished = for_each(lambda place, pixels: finish(opened[place], preprocess, pixels), places, stored)
        decoded.update(zip(places, finished, strict=True))
    decoded.update(zip(others, by_pillow, strict=True))
    return [decoded[place] for place in range(len(files))]


def _parts(places: Sequence[int], opened: Sequence[OpenedImage]) -> Iterator[list[int]]:
    """The places of images in parts, each of at most _PIXELS_AT_ONCE pixels or of one image."""
    part, pixels = list[int](), 0
    for place in places:
        width, height = opened[place].width, opened[place].height
        assert width is not None
        assert height is not None
        if part and pixels + width * height > _PIXELS_AT_ONCE:
            yield part
            part, pixels = [], 0
        part.append(place)
        pixels += width * height
    if part:
        yield part


@cache
def _card() -> CardDecoder:
    if not torch.cuda.is_available():
        raise RequestError(
            f"preprocess.decoder: nvjpeg needs a GPU, and this process on {platform.node()} has none; use machines "
            "with GPUs (execution.gpus_per_actor), or decoder: pillow, which is another run"
        )
    card = CardDecoder(torch.device("cuda"))
    card.try_out()
    return card


def _is_of_the_device(error: Exception) -> bool:
    """Whether memory is short or the GPU is lost, so that neither a file nor torchvision is at fault."""
    return isinstance(error, torch.AcceleratorError) or _is_lack_of_memory(error)


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def _small_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "gray").save(file, "JPEG")
    return file.getvalue()


def _text(error: Exception) -> str:
    return one_line(error, _MAX_ERROR_CHARACTERS)
