"""Which files travel with a saved model, found by listing folders and not by following imports."""

from pathlib import Path

import transformers_videorefer


PACKAGE = Path(transformers_videorefer.__file__).parent
FOLDERS = ("video", "regions", "inputs", "checkpoints", "models")


def exported_files() -> dict[str, Path]:
    """Name of each file in a saved repository -> its source."""
    files = {}
    for folder in FOLDERS:
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            if file.name != "__init__.py":
                name = file.name if folder == "models" else "_".join(file.relative_to(PACKAGE).parts)
                assert name not in files, f"{file} and {files[name]} would have one name"
                files[name] = file
    return files
