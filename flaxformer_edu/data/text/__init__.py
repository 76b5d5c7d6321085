"""Texts as token ids, and pairs of texts to translate."""
