"""What `tastemaker gc` does to a catalogue with versions in every kind of use."""
