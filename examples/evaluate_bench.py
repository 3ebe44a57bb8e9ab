# /// script
# requires-python = ">=3.11"
# dependencies = ["transformers-videorefer[eval]"]
# ///
"""Run a benchmark on several devices or machines: `videorefer eval` for a launcher.

    # the miniature on the synthetic bench, on a CPU, from an empty machine
    python examples/evaluate_bench.py synthetic --model tiny --num-clips 2 --output runs/synthetic

    # the released scripts' settings on four devices
    accelerate launch --num_processes 4 examples/evaluate_bench.py bench-q --model DAMO-NLP-SG/VideoRefer-7B \
        --data VideoRefer-Bench-Q.json --videos videos --preset published --mode single --output runs/bench-q

    # two processes on a CPU
    torchrun --nproc_per_node 2 examples/evaluate_bench.py synthetic --model tiny --device cpu --output runs/synthetic

The same command goes on with an interrupted run, with any number of processes. All of them must see the same folder.
docs/evaluation.md explains the flags.
"""

import argparse

from transformers_videorefer.commands.eval import add_eval_commands


def main() -> None:
    """Read the command line and run what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show library messages")
    add_eval_commands(parser, parents=[common])
    arguments = parser.parse_args()
    raise SystemExit(arguments.run(arguments))


if __name__ == "__main__":
    main()
