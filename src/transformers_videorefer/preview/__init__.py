"""Pictures of frames with outlined regions."""
