"""Copies configs/ into a wheel as posbench/configs; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Builds the package with the yaml files of configs/, which an editable install reads where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for file in sorted(Path("configs").rglob("*.yaml")):
                target = Path(self.build_lib, "posbench", file)
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


# With a root for all packages, an editable install is a path, which Python finds before a folder that has the name of
# the package: a clone beside the script that imports posbench.
setup(package_dir={"": "."}, cmdclass={"build_py": BuildWithConfigs})
