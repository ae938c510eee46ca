"""What the documentation says is what the code does."""

import re

from support.paths import ROOT

from regcore.methods import METHODS, make_method
from regcore.study.reference import filled

REMEDY = "run: python -m regcore.study.reference"


def test_the_configuration_readme_lists_every_key_and_setting():
    readme = ROOT / "config" / "README.md"
    assert readme.read_text() == filled(readme.read_text()), REMEDY


def test_every_setting_of_every_method_has_a_default_and_a_description():
    for name in METHODS:
        for key, rule in make_method(name).properties.items():
            assert "default" in rule and rule["description"], f"{name}.{key}"


def test_links_in_the_documentation_lead_somewhere():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "config" / "README.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
