"""Every layout by the name that experiment files give it. A new one is a file in this folder, and a line here."""

from mech_pipeline.exchange.suites.folder import Folder
from mech_pipeline.exchange.suites.huggingface import HuggingFace
from mech_pipeline.exchange.suites.layout import Layout
from mech_pipeline.exchange.suites.nanochat import NanoChat
from mech_pipeline.exchange.suites.neox import NeoX
from mech_pipeline.exchange.suites.olmo import Olmo
from mech_pipeline.exchange.suites.pico import Pico

LAYOUTS: dict[str, Layout] = {
    "folder": Folder(),
    "huggingface": HuggingFace(),
    "neox": NeoX(),
    "pico": Pico(),
    "olmo": Olmo(),
    "nanochat": NanoChat(),
}
