"""The commands of `videorefer`, one file each."""
