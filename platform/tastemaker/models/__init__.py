"""Single-device models, one file each. They know nothing of distribution, bundles or serving."""
