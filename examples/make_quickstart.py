"""Make the clip and the questions of `videorefer quickstart`: one clip of the toy world and two of its objects.

python examples/make_quickstart.py
"""

import json
from pathlib import Path

import transformers_videorefer
from transformers_videorefer.data import encode_video, make_clip, object_region
from transformers_videorefer.data.synthetic.clips import SPLIT_SEEDS


# Two objects of the validation split: a small blue cross moves right, a large green circle moves up.
SEED = SPLIT_SEEDS["validation"] + 1005
FOLDER = Path(transformers_videorefer.__file__).parent / "assets" / "quickstart"


def main() -> None:
    """Write `clip.mp4` and `questions.json`."""
    clip = make_clip(SEED)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "clip.mp4").write_bytes(encode_video(clip.frames))
    objects = {name: object_region(clip, index) for index, name in enumerate(("A", "B"))}
    content = {
        "video": "clip.mp4",
        "objects": objects,
        "questions": [
            {"text": "What is <region> doing?", "objects": ["A"]},
            {"text": "What is <region> doing?", "objects": ["B"]},
            {"text": "Which is larger, <region> or <region>?", "objects": ["A", "B"]},
        ],
    }
    (FOLDER / "questions.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
