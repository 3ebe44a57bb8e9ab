"""VideoRefer-Bench-Q: multiple-choice questions about objects, from the published JSON file.

    builder = VideoReferBenchQ(source="published")
    builder.download_and_prepare(num_proc=4)            # or builder.as_streaming_dataset("test")
    rows = builder.as_dataset("test")

Without `source` the published file is fetched from the Hub. Media are not fetched; rows name them relative to a data root.
"""

from typing import ClassVar

from transformers_videorefer.data.exporting.builders import PublishedBuilder, PublishedBuilderConfig, builder_configs


CITATION = """\
@inproceedings{yuan2025videorefer,
  title = {VideoRefer Suite: Advancing Spatial-Temporal Object Understanding with Video LLM},
  author = {Yuan, Yuqian and Zhang, Hang and Li, Wentong and Cheng, Zesen and Zhang, Boqiang and Li, Long and Li, Xin and Zhao, Deli and Zhang, Wenqiao and Zhuang, Yueting and Zhu, Jianke and Bing, Lidong},
  booktitle = {CVPR},
  year = {2025}
}
"""


class VideoReferBenchQ(PublishedBuilder):
    """VideoRefer-Bench-Q: 1,000 multiple-choice questions of five kinds."""

    BUILDER_CONFIGS: ClassVar[list[PublishedBuilderConfig]] = builder_configs("videorefer-bench-q")
    DEFAULT_CONFIG_NAME = "default"
    HOMEPAGE = "https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-Bench"
    CITATION = CITATION
    LICENSE = "apache-2.0"
