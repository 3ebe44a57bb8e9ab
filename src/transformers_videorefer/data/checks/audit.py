"""Audit of the videos that an annotation file names: which are missing or broken, and whether its frame numbers fit.

What is read of each video: all bytes once for the checksum, all packets (counted, not decoded) with the edit list
applied and, where that hides frames, again with it ignored, and then three pictures are decoded: the first, the last
and the last annotated one. So a file whose end is missing is found even where its table of contents promises more, and
so is damage at those pictures; damage of other pictures is not.
"""

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_all_start_methods, get_context
from typing import Any

from transformers_videorefer.data.paths import is_unsafe_path, resolve_media

from .probing import MediaFacts, probe_video


UNSAFE_PATH = "unsafe_path"
# What `annotation_fits` says.
FITS_BOTH, FITS_NEITHER = "both", "neither"
# Sizes of masks that are kept for one video; one is right.
MAX_SIZES = 4
# Videos handed to the processes ahead of their results, for each process.
_NUM_WAITING = 4


@dataclass
class VideoUse:
    """How an annotation file uses one video.

    Attributes:
        video (`str`): Path as in the rows.
        edit_list (`str`): How its rows count frames, "apply" or "ignore"; "mixed" where they differ.
        num_rows (`int`): Rows that name it.
        highest_frame_index (`int`, *optional*): Highest annotated frame number.
        mask_sizes (`list[tuple[int, int]]`): The first few different [height, width] of its masks.
    """

    video: str
    edit_list: str
    num_rows: int = 0
    highest_frame_index: int | None = None
    mask_sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Count a row.

        Args:
            row (`dict`): A row that names the video.
        """
        self.num_rows += 1
        if self.edit_list != (row.get("edit_list") or "apply"):
            self.edit_list = "mixed"
        indices = [] if row.get("frame_index") is None else [row["frame_index"]]
        for region in row.get("regions") or ():
            for frame in region["frames"]:
                indices.append(frame["frame_index"])
                rle = frame.get("rle")
                # A mask with a stated size is scaled to the video.
                size = tuple(rle["size"]) if rle and rle.get("size") and not frame.get("size") else None
                if size and size not in self.mask_sizes and len(self.mask_sizes) < MAX_SIZES:
                    self.mask_sizes.append(size)
        if indices:
            highest = max(indices)
            self.highest_frame_index = (
                highest if self.highest_frame_index is None else max(highest, self.highest_frame_index)
            )


@dataclass(frozen=True)
class VideoRecord:
    """One line of the manifest.

    Attributes:
        video (`str`): Path as in the rows.
        status (`str`): "ok", "missing", "unreadable", "truncated" or "unsafe_path".
        message (`str`): What is wrong; empty where nothing is.
        num_rows (`int`): Rows that name the video.
        edit_list (`str`): How its rows count frames: "apply", "ignore" or "mixed".
        highest_frame_index (`int`, *optional*): Highest annotated frame number.
        annotation_fits (`str`, *optional*): Which count of frames that number lies in: "both", "apply", "ignore" or
            "neither"; `None` where nothing is annotated or the frames could not be counted.
        mask_size_fits (`bool`, *optional*): Whether all masks have the size of the video; `None` without masks.
        has_edit_list (`bool`, *optional*): Whether an edit list hides frames.
        num_frames_applied (`int`, *optional*): Frames that players show.
        num_frames_ignored (`int`, *optional*): All coded frames, also those that the edit list hides.
        fps (`float`, *optional*): Frames per second.
        width (`int`, *optional*): Width in pixels, after rotation.
        height (`int`, *optional*): Height in pixels, after rotation.
        duration_seconds (`float`, *optional*): Length in seconds, with the edit list applied.
        num_bytes (`int`, *optional*): Size of the file, or of all files of the folder.
        sha256 (`str`, *optional*): Checksum of the file; of a folder, of the names and checksums of its files.
    """

    video: str
    status: str
    message: str
    num_rows: int
    edit_list: str
    highest_frame_index: int | None
    annotation_fits: str | None = None
    mask_size_fits: bool | None = None
    has_edit_list: bool | None = None
    num_frames_applied: int | None = None
    num_frames_ignored: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None
    num_bytes: int | None = None
    sha256: str | None = None

    @property
    def problem(self) -> str:
        """`str`: What keeps rows of this video from being right, in a few words; empty where nothing does."""
        if self.status != "ok":
            return self.status
        if self.annotation_fits is not None and self.annotation_fits not in (FITS_BOTH, self.edit_list):
            return "frame_outside_video" if self.annotation_fits == FITS_NEITHER else "wrong_edit_list"
        return "mask_size_differs" if self.mask_size_fits is False else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the line as a row of the manifest.

        Returns:
            `dict`: The attributes.
        """
        return asdict(self)


def collect_uses(rows: Iterable[dict[str, Any]]) -> dict[str, VideoUse]:
    """Find out how rows use their videos. Memory grows with the number of different videos only.

    Args:
        rows (`Iterable[dict]`): Rows of any of our sets; those without a video are passed over.

    Returns:
        `dict[str, VideoUse]`: By path, in the order in which the videos first appear.
    """
    uses: dict[str, VideoUse] = {}
    for row in rows:
        video = row.get("video")
        if not video:
            continue
        if video not in uses:
            uses[video] = VideoUse(video, row.get("edit_list") or "apply")
        uses[video].add(row)
    return uses


def audit_video(use: VideoUse, data_root: str) -> VideoRecord:
    """Look at one video.

    Args:
        use ([`VideoUse`]): The video and how rows use it.
        data_root (`str`): Folder that its path is relative to.

    Returns:
        [`VideoRecord`]: What was found; a broken video is never an error.
    """
    about = {
        "video": use.video,
        "num_rows": use.num_rows,
        "edit_list": use.edit_list,
        "highest_frame_index": use.highest_frame_index,
    }
    if is_unsafe_path(use.video):
        return VideoRecord(status=UNSAFE_PATH, message="The path leaves the data folder; it was not opened.", **about)
    path = resolve_media(use.video, data_root)
    if not os.path.exists(path):
        return VideoRecord(status="missing", message=f"There is nothing at {use.video}.", **about)
    highest = use.highest_frame_index
    decoded = (-1,) if highest is None else (-1, highest)
    applied = ignored = probe_video(path, frame_indices=decoded)
    if applied.num_hidden_frames or applied.status != "ok":
        ignored = probe_video(path, edit_list="ignore", frame_indices=decoded)
    # The count that no row uses may be broken: an edit list may even hide every frame.
    used = {"apply": [applied], "ignore": [ignored]}.get(use.edit_list, [applied, ignored])
    chosen = next((facts for facts in used if facts.status != "ok"), used[0])
    has_counts = bool(applied.num_frames or ignored.num_frames)
    num_bytes, sha256 = _hash_media(path)
    return VideoRecord(
        status=chosen.status,
        message=chosen.message.replace(path, use.video),
        annotation_fits=_fitting_count(highest, applied, ignored) if has_counts and highest is not None else None,
        mask_size_fits=_mask_size_fits(use, chosen),
        has_edit_list=ignored.num_frames > applied.num_frames if has_counts else None,
        num_frames_applied=applied.num_frames if has_counts else None,
        num_frames_ignored=ignored.num_frames if has_counts else None,
        fps=chosen.fps,
        width=chosen.width or None,
        height=chosen.height or None,
        duration_seconds=chosen.duration_seconds,
        num_bytes=num_bytes,
        sha256=sha256,
        **about,
    )


def _fitting_count(highest: int, applied: MediaFacts, ignored: MediaFacts) -> str:
    """Say in which count of frames a frame number lies."""
    fits = [name for name, facts in (("apply", applied), ("ignore", ignored)) if highest < facts.num_frames]
    return FITS_BOTH if len(fits) == 2 else fits[0] if fits else FITS_NEITHER


def _mask_size_fits(use: VideoUse, facts: MediaFacts) -> bool | None:
    if not use.mask_sizes or not facts.height:
        return None
    return use.mask_sizes == [(facts.height, facts.width)]


def _hash_media(path: str) -> tuple[int | None, str | None]:
    """Return size and checksum of a file, or of all files of a folder together; nothing where it cannot be read."""
    try:
        if not os.path.isdir(path):
            return _hash_file(path)
        total, digest = 0, hashlib.sha256()
        for name in sorted(entry.name for entry in os.scandir(path) if entry.is_file()):
            num_bytes, checksum = _hash_file(os.path.join(path, name))
            total += num_bytes
            digest.update(f"{checksum}  {name}\n".encode("utf-8", "surrogateescape"))
    except OSError:  # the status of the video says that and why
        return None, None
    return total, digest.hexdigest()


def _hash_file(path: str) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


def audit_videos(uses: Iterable[VideoUse], data_root: str, *, num_proc: int = 1) -> Iterator[VideoRecord]:
    """Look at many videos, with one thread of a decoder in each process.

    A video that makes the decoder crash takes a process with it; with several processes that is noted as unreadable
    and the others go on.

    Args:
        uses (`Iterable[VideoUse]`): Videos and how rows use them.
        data_root (`str`): Folder that their paths are relative to.
        num_proc (`int`, *optional*, defaults to `1`): Processes; 1 works in this one.

    Yields:
        [`VideoRecord`]: One for each video, in the order given.

    Raises:
        ValueError: If `num_proc` is less than 1.
    """
    if num_proc < 1:
        raise ValueError(f"`num_proc` is {num_proc}. Pass 1 or more.")
    if num_proc == 1:
        yield from (audit_video(use, data_root) for use in uses)
        return
    pool, waiting = _make_pool(num_proc), deque()
    try:
        for use in itertools.chain(uses, [None]):
            if use is not None:
                waiting.append((use, pool.submit(audit_video, use, data_root)))
            while waiting and (use is None or len(waiting) >= _NUM_WAITING * num_proc):
                try:
                    record = waiting[0][1].result()
                except BrokenProcessPool:
                    pool.shutdown(wait=False)
                    # One of those that were being worked on is to blame: each gets a process of its own.
                    yield from (_audit_apart(broken, data_root) for broken, _ in waiting)
                    pool = _make_pool(num_proc)
                    waiting.clear()
                else:
                    waiting.popleft()
                    yield record
    finally:
        pool.shutdown(cancel_futures=True)


def _make_pool(num_proc: int) -> ProcessPoolExecutor:
    # Forked copies of a process with threads may hang; a fork server imports the libraries once for all of them.
    is_offered = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if is_offered else "spawn")
    if is_offered:
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(num_proc, mp_context=context)


def _audit_apart(use: VideoUse, data_root: str) -> VideoRecord:
    """Look at a video that may end the process that does so."""
    with _make_pool(1) as pool:
        try:
            return pool.submit(audit_video, use, data_root).result()
        except BrokenProcessPool:
            message = "The decoder crashed or ran out of memory."
    about = (use.num_rows, use.edit_list, use.highest_frame_index)
    return VideoRecord(use.video, "unreadable", message, *about)
