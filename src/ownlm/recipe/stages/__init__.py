"""The stages of a recipe, one file each, in the order of the story."""
