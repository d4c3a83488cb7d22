"""A catalogue in a real MLflow store whose versions want to be promoted."""

from dataclasses import replace

from promotable import write_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.config_experiments import PromotionSettings
from tastemaker.promotion.promoter import Promoter, PromotionOrder
from tastemaker.registry.client import Registry


class World:
    """A catalogue of its own in the module's home, with bundles of its own."""

    def __init__(self, home, folder, catalogue):
        self.home, self.folder = home, folder
        self.settings = Settings(catalogue=catalogue)
        self.registry, self.store = Registry(self.settings, home), BundleStore(folder)

    def publish(self, **content):
        ref = write_bundle(self.store, catalogue=self.settings.catalogue, **content)
        return self.registry.publish(self.settings.catalogue, ref, {}).number

    def promoter(self, **promotion):
        settings = self.settings.model_copy(update={"promotion": PromotionSettings(**promotion)})
        return Promoter(settings, self.home, self.registry, self.store)

    def promote(self, number, alias="champion", reason="because", **order):
        return self.promoter().promote(PromotionOrder(number, alias, "ann", reason, **order))

    def asked(self, number, promoter=None, **order):
        """Gates that were asked, not those whose answers stood."""
        promoter, names = promoter or self.promoter(), []
        watched(promoter, names.append)
        promoter.promote(PromotionOrder(number, actor="ann", reason="again", **order))
        return names

    @property
    def aliases(self):
        return {
            name: version.number for name, version in self.registry.aliases(self.settings.catalogue).items()
        }

    @property
    def history(self):
        return self.registry.history(self.settings.catalogue)


def watched(promoter, see):
    """The promoter, with `see` called by the name of each gate right before it is asked."""
    gates = promoter.gates

    def seen(gate):
        def ask(case):
            see(gate.name)
            return gate.ask(case)

        return replace(gate, ask=ask)

    *promoter._gates, promoter._canary_gate = [seen(gate) for gate in gates]
    return promoter
