"""What is kept and what goes: `tastemaker gc`. Not a user's erasure (`erasure`), nor a catalogue's removal (`removal`)."""
