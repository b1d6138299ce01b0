"""What learning needs and no network: examples of speech with text, ways to hear them again."""
