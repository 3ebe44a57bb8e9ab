"""HC-STVG: descriptions of persons with a box on every frame, from the authors' annotation files.

    builder = HCSTVG(source="annotations")
    builder.download_and_prepare(num_proc=4)            # or builder.as_streaming_dataset("test")
    rows = builder.as_dataset("test")

The authors offer the files for download from a web page, so `source` is needed: a folder with `train.json`,
`val.json` or `test.json`, or some of them; `_v1` or `_v2` may stand before the dot.
"""

from typing import ClassVar

from transformers_videorefer.data.exporting.builders import PublishedBuilder, PublishedBuilderConfig, builder_configs


CITATION = """\
@article{tang2022hcstvg,
  title = {Human-centric Spatio-Temporal Video Grounding With Visual Transformers},
  author = {Tang, Zongheng and Liao, Yue and Liu, Si and Li, Guanbin and Jin, Xiaojie and Jiang, Hongxu and Yu, Qian and Xu, Dong},
  journal = {IEEE Transactions on Circuits and Systems for Video Technology},
  volume = {32},
  number = {12},
  pages = {8238--8249},
  year = {2022}
}
"""


class HCSTVG(PublishedBuilder):
    """HC-STVG: persons as boxes, with what they do."""

    BUILDER_CONFIGS: ClassVar[list[PublishedBuilderConfig]] = builder_configs("hc-stvg")
    DEFAULT_CONFIG_NAME = "default"
    HOMEPAGE = "https://github.com/tzhhhh123/HC-STVG"
    CITATION = CITATION
    LICENSE = "unknown"
