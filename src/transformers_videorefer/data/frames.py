"""The reader of one frame of a region: mask or box, in whatever form a file gives it, as the frame of a row."""

from typing import Any

from transformers_videorefer.regions.values import parse_value

from .defects import FrameError
from .segmentations import read_size, segmentation_to_rle


def null_frame(index: int) -> dict[str, Any]:
    """Make the frame of a row in which nothing is seen of the object."""
    return {"frame_index": index, "rle": None, "box": None, "size": None}


def read_frame(
    index: int,
    *,
    mask: Any = None,
    box: Any = None,
    size: Any = None,
    picture: tuple[int, int] | None = None,
    where: str,
    check: bool = True,
) -> dict[str, Any]:
    """Read one frame of a region.

    Args:
        index (`int`): Number of the frame.
        mask (`Any`, *optional*): What `segmentation_to_rle` takes.
        box (`Any`, *optional*): [x0, y0, x1, y1].
        size (`Any`, *optional*): [height, width] that the file states beside mask or box; kept in the frame.
        picture (`tuple[int, int]`, *optional*): Height and width of the picture, for polygons; not kept.
        where (`str`): Start of every error message.
        check (`bool`, *optional*, defaults to `True`): Read compressed counts. Pass `False` to have `broken_rles`
            check many masks at once later.

    Returns:
        `dict`: `frame_index`, `rle`, `box` and `size` of a row; null where nothing was given.

    Raises:
        FrameError: If something is broken; its `kind` says what.
    """
    frame = null_frame(index)
    if mask is not None and box is not None:
        raise FrameError("wrong_type", f"{where}: there is an `rle` and a `box`, nobody knows which is meant")
    if size is not None:
        frame["size"] = read_size(size, where=where)
    if box is not None:
        try:
            frame["box"] = parse_value("box", box, None).tolist()
        except (TypeError, ValueError) as error:
            raise FrameError("broken_box", f"{where}: {error}") from error
    height, width = picture or (None, None)
    frame["rle"] = segmentation_to_rle(mask, height=height, width=width, where=where, check=check)
    return frame
