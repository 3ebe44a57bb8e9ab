"""Numbers that others published on these benchmarks, to stand beside ours. None of them was measured here."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table.

    Attributes:
        model (`str`): Name of the model.
        mode (`str`): "single" or "multi" where the authors tell, else empty.
        scores (`dict[str, float]`): Scores by the names that our results use; accuracies and caption metrics in percent
            as published.
    """

    model: str
    mode: str
    scores: dict[str, float] = field(default_factory=dict)


PUBLISHED_ROWS: dict[str, tuple[PublishedRow, ...]] = {
    "bench-d": (
        PublishedRow("VideoRefer-7B", "single", {"SC": 4.41, "AD": 3.27, "TD": 3.03, "HD": 2.97, "average": 3.42}),
        PublishedRow("VideoRefer-7B", "multi", {"SC": 4.44, "AD": 3.27, "TD": 3.10, "HD": 3.04, "average": 3.46}),
        PublishedRow("VideoRefer-VideoLLaMA3-7B", "", {"average": 3.72}),
        PublishedRow("PixelRefer-7B", "", {"average": 3.70}),
        PublishedRow("DAM-8B", "", {"average": 3.68}),
        PublishedRow("UFVideo-7B", "single", {"average": 3.59}),
        PublishedRow("UFVideo-7B", "multi", {"average": 3.61}),
        PublishedRow("GPT-4o", "single", {"average": 2.95}),
        PublishedRow("GPT-4o", "multi", {"average": 3.25}),
    ),
    "bench-q": (
        PublishedRow(
            "VideoRefer-7B",
            "single",
            {
                "Basic Questions": 75.4,
                "Sequential Questions": 68.6,
                "Relationship Questions": 59.3,
                "Reasoning Questions": 89.4,
                "Future Predictions": 78.1,
                "accuracy": 71.9,
            },
        ),
        PublishedRow(
            "VideoRefer-7B",
            "multi",
            {"Sequential Questions": 70.6, "Relationship Questions": 60.5, "accuracy": 72.1},
        ),
        PublishedRow("VideoRefer-VideoLLaMA3-7B", "", {"accuracy": 80.1}),
        PublishedRow("PixelRefer-7B", "", {"accuracy": 79.4}),
        PublishedRow("GPT-4o", "", {"accuracy": 71.3}),
    ),
    "hc-stvg": (
        PublishedRow(
            "VideoRefer-7B",
            "",
            {"BLEU@4": 16.5, "METEOR": 18.7, "ROUGE_L": 42.4, "CIDEr": 68.6, "SPICE": 28.3},
        ),
    ),
    "synthetic": (),
}
