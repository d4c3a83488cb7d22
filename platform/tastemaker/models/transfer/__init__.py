"""Models of one domain of a catalogue (the target) that learn from its others (the sources), over users whom they share.

`domains` says which item is of which, `model` what all have in common, `monitor` whether the transfer pays.
"""
