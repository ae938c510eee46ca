"""Running the repository's workflow."""

import os
import subprocess

import yaml

from support.paths import BIN, ROOT


def environment():
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def snakemake(folder, *arguments, config=None):
    """Run Snakemake in ``folder`` on this repository's workflow."""
    command = [str(BIN / "snakemake"), "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "workflow" / "profiles" / "default")]
    if config is not None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        command += ["--configfile", str(path)]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=environment())
    done.output = done.stdout + done.stderr
    return done
