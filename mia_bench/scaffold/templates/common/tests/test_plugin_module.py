from mia_bench.testing import Conformance

from plugin_module import PluginClass

test_conformance = Conformance(PluginClass)
