"""Takes a catalogue's versions out of the registry. The runs that made them stay: they say what was done."""

from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.store import open_client, registry_errors


def forget_versions(settings: Settings, home: Home, catalogue: str) -> int:
    """Deletes the registered model of a catalogue with its versions and aliases; gives the number of versions.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    versions = Registry(settings, home).versions(catalogue)
    if versions:
        with registry_errors(f"remove the versions of catalogue {catalogue}"):
            open_client(settings, home).delete_registered_model(catalogue)
    return len(versions)
