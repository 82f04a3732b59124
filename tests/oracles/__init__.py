"""The recurrent networks once more, in NumPy and by hand, to be read and to judge the code in `captioner` by."""
