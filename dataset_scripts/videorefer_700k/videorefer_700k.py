"""VideoRefer-700K: descriptions of and questions about objects in videos, from the published JSON files.

    builder = VideoRefer700K(config_name="qa", source="published")
    builder.download_and_prepare(num_proc=4)            # or builder.as_streaming_dataset("train")
    rows = builder.as_dataset("train")

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


class VideoRefer700K(PublishedBuilder):
    """VideoRefer-700K; configurations `short_caption`, `detailed_caption` and `qa`."""

    BUILDER_CONFIGS: ClassVar[list[PublishedBuilderConfig]] = builder_configs("videorefer-700k")
    HOMEPAGE = "https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-700K"
    CITATION = CITATION
    LICENSE = "apache-2.0"
