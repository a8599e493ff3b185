"""GGUF, the file format of llama.cpp: written with tokenizer and chat template inside, and read back."""
