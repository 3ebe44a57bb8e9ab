"""Finds the videos that an export speaks of below one folder, and tells their frames and size."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from transformers_videorefer.data.defects import RecordError, make_defect
from transformers_videorefer.data.paths import is_unsafe_path
from transformers_videorefer.video.opening import open_video
from transformers_videorefer.video.pictures import FolderReader, is_picture_file_name


logger = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What the import has to know of a video; numbers are None where the video is missing.

    Attributes:
        name (`str`): Path below the folder of videos, with `/` between its parts.
        num_frames (`int`, *optional*): Frames that players show (edit lists applied).
        height (`int`, *optional*): Height of a frame in pixels, as decoded, after rotation.
        width (`int`, *optional*): Width of a frame in pixels.
        frame_times (`np.ndarray` of shape `(num_frames,)`, *optional*): Seconds of each frame; None for folders.
        file_names (`tuple[str, ...]`, *optional*): For a folder of pictures, the name of the picture of each frame.
    """

    name: str
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    frame_times: np.ndarray | None = None
    file_names: tuple[str, ...] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """`tuple[int, int]`, *optional*: [height, width] in pixels."""
        return None if self.height is None or self.width is None else (self.height, self.width)


class VideoFolder:
    """The folder of videos that rows are relative to. Each video is opened once.

    Args:
        root (`str` or `os.PathLike`): The folder.

    Raises:
        NotADirectoryError: If there is no such folder.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise NotADirectoryError(
                f"`videos` {str(self.root)!r} is no folder. Pass the folder that holds the videos."
            )
        self._infos: dict[tuple[str, str], VideoInfo | RecordError] = {}
        self._by_name: dict[str, list[str]] | None = None

    def find(self, names: Iterable[str], *, edit_list: str = "apply") -> VideoInfo:
        """Find and open a video by one of the names an export has for it.

        A name is looked for as a path below the folder, with and without a video suffix; then as the last part of a
        path anywhere below the folder, where only one video has that name. The names are tried in their order.

        Args:
            names (`Iterable[str]`): Names or paths, the most exact one first.
            edit_list (`str`, *optional*, defaults to `"apply"`): `"apply"` counts the frames that players show, which
                is what annotation tools number; `"ignore"` counts all coded ones.

        Returns:
            [`VideoInfo`].

        Raises:
            RecordError: If a name leads out of the folder, no video has such a name, several have, or it cannot be
                read.
        """
        names = [name for name in dict.fromkeys(names) if name]
        for name in names:
            if is_unsafe_path(name):
                message = f"the video name {name!r} is no path below the folder of videos. Write a relative path."
                raise RecordError([make_defect("unsafe_path", message)])
        found = next((place for name in names if (place := self._place(name))), None)
        if found is None:
            found = self._place_by_last_part(names)
        if found is None:
            listed = " or ".join(repr(name) for name in names) or "(the export names none)"
            message = f"no video {listed} below {self.root.name!r}. Put it there, or pass another folder of videos."
            raise RecordError([make_defect("missing_video", message)])
        key = (found, edit_list)
        if key not in self._infos:
            self._infos[key] = self._open(found, edit_list)
        info = self._infos[key]
        if isinstance(info, RecordError):
            raise info
        return info

    def only_video(self) -> list[str]:
        """Name the video of a folder that holds a single one, for exports that name none.

        Returns:
            `list[str]`: Its path, or nothing where there are none or several.
        """
        paths = [path for paths in self._paths_by_name().values() for path in paths]
        return list(dict.fromkeys(paths)) if len(set(paths)) == 1 else []

    def _place(self, name: str) -> str | None:
        """Return the path of a video that lies just where the name says."""
        relative = PurePosixPath(os.path.normpath(name.replace("\\", "/"))).as_posix()
        place = self.root / relative
        if place.is_dir():
            return relative if any(is_picture_file_name(entry.name) for entry in os.scandir(place)) else None
        if place.is_file():
            return relative
        return next(
            (f"{relative}{end}" for end in VIDEO_SUFFIXES if place.with_name(place.name + end).is_file()), None
        )

    def _place_by_last_part(self, names: Iterable[str]) -> str | None:
        """Return the path of the only video, anywhere below the folder, whose last part is one of the names."""
        for name in names:
            last = PurePosixPath(name.replace("\\", "/")).name
            paths = self._paths_by_name().get(last, [])
            if len(paths) > 1:
                listed = ", ".join(repr(path) for path in paths[:3])
                message = (
                    f"{len(paths)} videos are called {last!r}: {listed}. Pass the folder that holds the right one."
                )
                raise RecordError([make_defect("missing_video", message)])
            if paths:
                return paths[0]
        return None

    def _paths_by_name(self) -> dict[str, list[str]]:
        """List every video file and every folder of pictures below the folder, once."""
        if self._by_name is None:
            self._by_name = {}
            for folder, folders, files in os.walk(self.root):
                folders.sort()
                relative = Path(folder).relative_to(self.root)
                for file in sorted(files):
                    if file.lower().endswith(VIDEO_SUFFIXES):
                        for name in (file, Path(file).stem):
                            self._by_name.setdefault(name, []).append((relative / file).as_posix())
                if relative.name and any(is_picture_file_name(file) for file in files):
                    self._by_name.setdefault(relative.name, []).append(relative.as_posix())
        return self._by_name

    def _open(self, name: str, edit_list: str) -> VideoInfo | RecordError:
        """Open a video for its frames and the size of the first one."""
        try:
            with open_video(self.root / name, edit_list=edit_list) as reader:
                _, frame = next(reader.read([0]))
                file_names = reader.file_names if isinstance(reader, FolderReader) else None
                times = reader.frame_times if reader.fps else None
                height, width = frame.shape[:2]
                return VideoInfo(name, reader.num_frames, height, width, times, file_names)
        except (OSError, ValueError) as error:
            logger.info("cannot read %s: %s", name, error)
            # Reports lie beside the rows and name no folder of this machine.
            reason = str(error).replace(f"{self.root}{os.sep}", "")
            return RecordError([make_defect("unreadable_video", f"the video {name!r} cannot be read: {reason}")])


__all__ = ["VIDEO_SUFFIXES", "VideoFolder", "VideoInfo"]
