"""What others import from here keeps its place."""

import importlib

import pytest


NAMES = {
    "transformers_videorefer": """
        VideoReferConfig VideoReferDataCollator VideoReferForConditionalGeneration VideoReferModel VideoReferProcessor
        VideoReferVideoProcessor convert_checkpoint register
        VideoReferPreTrainedModel VideoReferSFTConfig VideoReferSFTTrainer merge_and_export __version__
    """,
    "transformers_videorefer.bundled": "TINY_CHECKPOINT",
    "transformers_videorefer.cli": "main",
    "transformers_videorefer.data": """
        BAD_ROWS DEFECT_KINDS Clip Defect DefectReport RecordError VideoReferDataCollator bench_d_rows bench_q_rows
        broken_rles conversation_rows encode_rle encode_runs encode_video from_published iterate_clips iterate_records
        iterate_row_batches iterate_rows make_clip object_region record_defects row_defects salvage salvage_hc_stvg
        segmentation_to_rle split_file to_chat to_published write_clip
    """,
    "transformers_videorefer.evaluation": """
        Answerer NoRegion OutlineAnswerer PreparingAnswerer TextOnly VideoReferAnswerer
    """,
    "transformers_videorefer.regions": "decode_rle encode_rle parse_region select_frames",
    "transformers_videorefer.training": """
        STAGES AuxiliaryLoss GuardedCollator RegionStates RowGuard RowReport Stage VideoReferSFTConfig
        VideoReferSFTTrainer freeze_all_but merge_and_export
    """,
    "transformers_videorefer.video": "VideoReader open_video",
}


@pytest.mark.parametrize("module", NAMES)
def test_public_names_are_there(module: str) -> None:
    found = importlib.import_module(module)
    for name in NAMES[module].split():
        assert hasattr(found, name), name
    assert set(getattr(found, "__all__", ())) <= set(NAMES[module].split()), "a new public name has no line here"


def test_a_reader_offers_what_is_promised() -> None:
    from transformers_videorefer.video import VideoReader

    for name in ("frame_times", "read", "close"):
        assert hasattr(VideoReader, name)
    assert {"num_frames", "fps"} <= set(VideoReader.__annotations__)
